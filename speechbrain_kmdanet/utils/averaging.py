"""Averages of the weights of a training, which separate better than the last.

Reference: Polyak and Juditsky, "Acceleration of stochastic approximation by
averaging".
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from speechbrain_kmdanet.errors import UserError

Tensors = list[Tensor] | tuple[Tensor, ...]


def average_weights(
    modules: Mapping[str, nn.Module], decay: float
) -> AveragedModel:
    """Exponential moving average of the weights of modules.

    The first steps, which are far from the last, count less: after n steps the
    decay is at most (1 + n) / (10 + n). What is no weight, as the statistics of
    a batch normalisation, is that of the last step.

    Arguments
    ---------
    modules : dict
        The modules by name.
    decay : float
        What is kept of the average in a step, in (0, 1).

    Returns
    -------
    AveragedModel
        The average; call ``update_parameters`` with the modules after a step,
        take the averaged ones from ``module``, which are in evaluation mode.

    Raises
    ------
    UserError
        If the decay is out of range.

    Example
    -------
    >>> modules = nn.ModuleDict({"masknet": nn.Linear(1, 1)})
    >>> average = average_weights(modules, decay=0.999)
    >>> average.update_parameters(modules)
    >>> average.module["masknet"](torch.zeros(2, 1)).shape
    torch.Size([2, 1])
    """
    if not 0 < decay < 1:
        raise UserError(f"ema_decay must be in (0, 1), got {decay!r}")

    @torch.no_grad()
    def update(
        averages: Tensors, weights: Tensors, steps: Tensor | int
    ) -> None:
        ramp = (1 + int(steps)) / (10 + int(steps))
        torch._foreach_lerp_(averages, weights, 1 - min(decay, ramp))

    average = AveragedModel(nn.ModuleDict(modules), multi_avg_fn=update)
    return average.eval()
