"""Runs train.py with a probe inside, in a process that has it in its path.

    probe_train.py kill SIGNAL:WHEN ARGUMENTS
    probe_train.py record FOLDER ARGUMENTS [--then MORE_ARGUMENTS]...
    probe_train.py gradients FOLDER ARGUMENTS [--then MORE_ARGUMENTS]...

`kill` sends a signal to the process and those of its loaders: after a step
(its number), in the validation of the second epoch ("valid"), or while a
checkpoint in it is written ("save"). `record` writes which mixtures each
process is trained on, and its weights after each epoch; what follows `--then`
makes another training in the same processes. `gradients` writes those of each
step, before they are clipped, and the state after it.
"""

import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

import speechbrain as sb
import torch
import train

from speechbrain_kmdanet.utils import checkpointing
from speechbrain_kmdanet.utils.processes import process_group


class Killer:
    """Sends the group of processes the signal that `value` says, when it says.

    The signal goes to all of them, as Ctrl-C and schedulers send it.
    """

    value = None
    killed = False

    def kill(self, when):
        name, moment = self.value.split(":")
        if str(when) == moment and not self.killed:
            self.killed = True
            os.killpg(0, signal.Signals[name])

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        super().on_fit_batch_end(batch, outputs, loss, should_step)
        if should_step:
            self.kill(self.optimizer_step)

    def evaluate_batch(self, batch, stage):
        result = super().evaluate_batch(batch, stage)
        if stage == sb.Stage.VALID and self.hparams.epoch_counter.current == 2:
            self.kill("valid")
        return result

    def _save_intra_epoch_ckpt(self):
        if self.hparams.epoch_counter.current == 2 and not self.killed:
            write = checkpointing.write_tensors

            def write_half(tensors, path):
                write(tensors, path)
                os.truncate(path, path.stat().st_size // 2)
                self.kill("save")
                write(tensors, path)

            checkpointing.write_tensors = write_half
        super()._save_intra_epoch_ckpt()


class Writer:
    """Writes what each process does into the folder `value`."""

    value = None

    def path(self, suffix):
        folder = Path(self.value, Path(self.hparams.output_folder).name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"rank{os.environ.get('RANK', 0)}.{suffix}"


class Recorder(Writer):
    """Writes ids, and the weights after each epoch."""

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


class Gradients(Writer):
    """Writes the gradients of each step, and the state after it."""

    def optimizers_step(self):
        masknet = self.hparams.masknet
        gradients = {
            name: parameter.grad
            for name, parameter in masknet.named_parameters()
            if parameter.grad is not None
        }
        path = self.path(f"step{self.optimizer_step}")
        torch.save((gradients, masknet.state_dict()), path)
        super().optimizers_step()


def main(probe, value, *arguments):
    sb.utils.logger.get_environment_description = str
    mixin = {"kill": Killer, "record": Recorder, "gradients": Gradients}[probe]
    bases = mixin, train.Separator
    train.Separator = type(mixin.__name__, bases, {"value": value})
    runs = [[]]
    for argument in arguments:
        if argument == "--then":
            runs.append([])
        else:
            runs[-1].append(argument)
    with process_group({"distributed_backend": "gloo"}):
        # One for all runs: there is one beginning for torchrun.
        train.process_group = nullcontext
        for run in runs:
            status = train.main(run)
            if status:
                return status
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
