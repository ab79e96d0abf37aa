"""Training that can be killed at any time and goes on as if it had not been."""

from typing import Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.distributed import get_rank

from speechbrain_kmdanet.utils.export import is_finished


class ResumableBrain(sb.Brain):
    """Brain whose steps are functions of the seed and of what is saved.

    On the CPU, a training that continues from a checkpoint reaches the weights
    of an uninterrupted one bit for bit. Needs the hyperparameters seed and
    epoch_counter, and data that are a function of seed, epoch and index.
    """

    def on_fit_start(self) -> None:
        """As SpeechBrain's, but a checkpoint cut short by a kill is left."""
        self._compile()
        self._wrap_distributed()
        self.init_optimizers()
        self.checkpointer.recover_if_possible(ckpt_predicate=is_finished)

    def on_fit_batch_start(self, batch: Any, should_step: bool) -> None:
        """Seeds the step, see :meth:`speechbrain.Brain.on_fit_batch_start`.

        It draws dropout and the first centroids of k-means. No checkpoint
        holds the state of PyTorch's generator; the step's number is in all.
        """
        epoch, rank = self.hparams.epoch_counter.current, get_rank() or 0
        key = self.hparams.seed, epoch, self.step, rank
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def _should_save_intra_epoch_ckpt(self, *arguments: Any) -> bool:
        """As SpeechBrain's, but gradients being accumulated are in no save."""
        accumulates = self.step % self.grad_accumulation_factor != 0
        return not accumulates and super()._should_save_intra_epoch_ckpt(
            *arguments
        )
