"""Training that can be ended at any time and goes on as if it had not been."""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_broadcast, get_rank, run_on_main

from speechbrain_kmdanet.errors import UserError, stop
from speechbrain_kmdanet.nnet.attractors import KMeansAttractors
from speechbrain_kmdanet.utils.checkpointing import all_finite
from speechbrain_kmdanet.utils.jobs import deferred_signals, write_whole


class ResumableBrain(sb.Brain):
    """Brain whose steps are functions of the seed and of what is saved.

    On the CPU, a training that continues from a checkpoint reaches the weights
    of an uninterrupted one bit for bit. A signal ends it after a step, with a
    checkpoint; what has diverged is not saved. Needs a WholeCheckpointer, the
    hyperparameters seed, epoch_counter and train_log, and data that are a
    function of seed, epoch and index.
    """

    # Numbers of signals that wait to be obeyed.
    signals: Sequence[int] = ()
    # Step and loss at the end of the training of an epoch.
    trained: tuple[int, float]

    def fit(self, *arguments: Any, **options: Any) -> None:
        """Trains, see :meth:`speechbrain.Brain.fit`.

        Raises
        ------
        UserError
            If the training diverges.
        KeyboardInterrupt, Stopped
            If a signal came, after a checkpoint.
        """
        with deferred_signals() as self.signals:
            try:
                super().fit(*arguments, **options)
            except (ValueError, RuntimeError):
                # What is not finite is refused in many places.
                self._check_finite()
                raise
        if self.signals:
            stop(self.signals[0])

    def on_fit_start(self) -> None:
        """As SpeechBrain's, and the log ends where the checkpoint does."""
        self._compile()
        self._wrap_distributed()
        self.init_optimizers()
        run_on_main(self.checkpointer.remove_unfinished)
        self.checkpointer.recover_if_possible()
        done = self.hparams.epoch_counter.current
        run_on_main(_cut_log, [self.hparams.train_log, done])

    def on_fit_batch_start(self, batch: Any, should_step: bool) -> None:
        """Seeds the step, see :meth:`speechbrain.Brain.on_fit_batch_start`.

        No checkpoint holds the state of PyTorch's generator; the step's number
        is in all. It draws dropout, of each process its own, and the first
        centroids of k-means, which the processes share.
        """
        key = self.hparams.seed, self.hparams.epoch_counter.current, self.step
        torch.manual_seed(_seed_of(*key, get_rank() or 0))
        for module in self.modules.modules():
            if isinstance(module, KMeansAttractors):
                module.step_seed = _seed_of(*key)

    def check_loss_isfinite(self, loss: torch.Tensor) -> None:
        """Refuses what diverges, see :meth:`speechbrain.Brain.fit_batch`.

        Only what skips such steps has patience.
        """
        if torch.isfinite(loss):
            return
        self.nonfinite_count += 1
        skips = self.scaler.is_enabled() or self.skip_nonfinite_grads
        if not skips or self.nonfinite_count > self.nonfinite_patience:
            self._diverge()

    def evaluate_batch(self, batch: Any, stage: sb.Stage) -> torch.Tensor:
        """Scores a batch, see :meth:`speechbrain.Brain.evaluate_batch`.

        A validation can be broken off, and can show divergence.
        """
        if stage != sb.Stage.VALID:
            return super().evaluate_batch(batch, stage)
        # Several processes go on to the end: they do not agree where they are.
        if self.signals and not self.distributed_launch:
            self.stopping = self.signals
            self.step, self.avg_train_loss = self.trained
            self._save_intra_epoch_ckpt()
        loss = super().evaluate_batch(batch, stage)
        if not torch.isfinite(loss):
            self._diverge()
        return loss

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Remembers where it was, see :meth:`speechbrain.Brain.on_stage_end`."""
        if stage == sb.Stage.TRAIN:
            self.trained = self.step, self.avg_train_loss

    def save_epoch(self, meta: Mapping[str, Any], max_key: str) -> None:
        """Saves the end of an epoch; the best, the last and that before stay.

        Arguments
        ---------
        meta : dict
            Meta data of the checkpoint.
        max_key : str
            The one of them that is largest in the best.

        Raises
        ------
        UserError
            If the training has diverged.
        KeyboardInterrupt, Stopped
            If a signal came, after the checkpoint.
        """
        self._check_finite()
        last = self.checkpointer.find_checkpoint()
        self.checkpointer.save_and_keep_only(
            meta=meta,
            max_keys=[max_key],
            importance_keys=[
                lambda x: last is not None and x.path == last.path
            ],
        )
        self.stopping = ddp_broadcast(list(self.signals))
        if self.stopping:
            stop(self.stopping[0])

    def _should_save_intra_epoch_ckpt(
        self, last_ckpt_time: float, steps_since_ckpt: int
    ) -> bool:
        """As SpeechBrain's, and when a signal came.

        Gradients that are being accumulated are in no save.
        """
        if self.step % self.grad_accumulation_factor:
            return False
        minutes = (time.time() - last_ckpt_time) / 60
        due = (
            bool(self.signals)
            or 0 < self.ckpt_interval_minutes < minutes
            or 0 < self.ckpt_interval_steps <= steps_since_ckpt
        )
        # All processes do what the first one decides.
        due, self.stopping = ddp_broadcast((due, list(self.signals)))
        return due

    def _save_intra_epoch_ckpt(self) -> None:
        """As SpeechBrain's; after a signal, this is the end."""
        self._check_finite()
        super()._save_intra_epoch_ckpt()
        if self.stopping:
            stop(self.stopping[0])

    def _check_finite(self) -> None:
        """Refuses to go on with what has diverged."""
        if not all_finite(self.checkpointer.recoverables):
            self._diverge()

    def _diverge(self) -> NoReturn:
        """Ends a training that has diverged; the last good checkpoint stays."""
        raise UserError(
            "the training diverged in epoch "
            f"{self.hparams.epoch_counter.current}, its loss or its weights "
            "are not finite: lower lr, in another output_folder"
        )


def _seed_of(*key: int) -> int:
    """Seed that whole numbers from 0 on stand for."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def _cut_log(train_log: str, epochs: int) -> None:
    """Removes the lines of epochs that a training makes anew, or cut short."""
    path = Path(train_log)
    if not path.is_file():
        return
    lines = path.read_text("utf-8", errors="replace").splitlines(keepends=True)
    kept = [
        line
        for line in lines
        if (epoch := re.match(r"epoch: (\d+), .*\n", line))
        and int(epoch[1]) <= epochs
    ]
    if kept != lines or path.is_symlink():
        with write_whole(path) as unfinished:
            unfinished.write_text("".join(kept), encoding="utf-8")
