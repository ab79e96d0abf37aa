"""Runs train.py with a probe inside, in a process that has it in its path.

    probe_train.py kill STEP ARGUMENTS
    probe_train.py record FOLDER ARGUMENTS [--then MORE_ARGUMENTS]...

`kill` ends the process, and those of its loaders, without warning after a
step. `record` writes which mixtures each process is trained on, and its weights
after each epoch; what follows `--then` makes another training in the same
processes.
"""

import os
import signal
import sys
from pathlib import Path

import speechbrain as sb
import torch
import train


class Killer:
    """Ends the process after the step that `value` says."""

    value = None

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        super().on_fit_batch_end(batch, outputs, loss, should_step)
        if self.optimizer_step == int(self.value):
            os.killpg(0, signal.SIGKILL)


class Recorder:
    """Writes ids and weights of this process into the folder `value`."""

    value = None

    def path(self, suffix):
        folder = Path(self.value, Path(self.hparams.output_folder).name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"rank{os.environ['RANK']}.{suffix}"

    def compute_forward(self, batch, stage):
        suffix = "ids" if stage == sb.Stage.TRAIN else f"{stage.name}.ids"
        with self.path(suffix).open("a") as file:
            file.writelines(f"{name}\n" for name in batch.id)
        return super().compute_forward(batch, stage)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if stage == sb.Stage.TRAIN:
            masknet = self.hparams.masknet
            torch.save(list(masknet.parameters()), self.path("weights"))
        super().on_stage_end(stage, stage_loss, epoch)


def main(probe, value, *arguments):
    sb.utils.logger.get_environment_description = str
    mixin = {"kill": Killer, "record": Recorder}[probe]
    bases = mixin, train.Separator
    train.Separator = type(mixin.__name__, bases, {"value": value})
    runs = [[]]
    for argument in arguments:
        if argument == "--then":
            runs.append([])
        else:
            runs[-1].append(argument)
    for run in runs:
        status = train.main(run)
        if status:
            return status
        # The group of processes stays for the next run.
        sb.utils.distributed.ddp_init_group = lambda run_opts: None
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
