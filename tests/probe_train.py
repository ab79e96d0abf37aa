"""Runs train.py with a probe inside, in a process of its own.

    probe_train.py kill STEP ARGUMENTS
    probe_train.py record FOLDER ARGUMENTS [--then MORE_ARGUMENTS]...

`kill` ends the process without warning after a step. `record` writes which
mixtures each process is trained on, and its weights after each epoch; what
follows `--then` makes another training in the same processes.
"""

import os
import signal
import sys
from pathlib import Path

import speechbrain as sb
import torch
from recipe_runs import RECIPE

sys.path.insert(0, str(RECIPE))
import train  # noqa: E402

sb.utils.logger.get_environment_description = str
probe, value, *arguments = sys.argv[1:]


class Killed(train.Separation):
    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        if self.optimizer_step == int(value):
            os.kill(os.getpid(), signal.SIGKILL)


class Recorded(train.Separation):
    def path(self, suffix):
        folder = Path(value, Path(self.hparams.output_folder).name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"rank{os.environ['RANK']}.{suffix}"

    def compute_forward(self, batch, stage):
        if stage == sb.Stage.TRAIN:
            with self.path("ids").open("a") as file:
                file.writelines(f"{name}\n" for name in batch.id)
        return super().compute_forward(batch, stage)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if stage == sb.Stage.TRAIN:
            masknet = self.hparams.model["masknet"]
            torch.save(list(masknet.parameters()), self.path("weights"))
        super().on_stage_end(stage, stage_loss, epoch)


train.Separation = {"kill": Killed, "record": Recorded}[probe]
runs = [[]]
for argument in arguments:
    if argument == "--then":
        runs.append([])
    else:
        runs[-1].append(argument)
for run in runs:
    status = train.main(run)
    if status:
        sys.exit(status)
    # The group of processes stays for the next run.
    sb.utils.distributed.ddp_init_group = lambda run_opts: None
