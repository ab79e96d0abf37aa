"""What processes that share out a batch compute as if they were one.

An item of the whole batch is trained on alike, whichever process has it: what
depends on all items, in training, is made of those of all processes.
"""

import torch
from torch import Tensor, distributed


def several_processes() -> bool:
    """Whether there are other processes than this one.

    Returns
    -------
    bool
        False also where PyTorch was built for one alone.

    Example
    -------
    >>> several_processes()
    False
    """
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def sum_over_processes(x: Tensor) -> Tensor:
    """Sum of the tensors of all processes, with its gradient.

    Arguments
    ---------
    x : torch.Tensor
        Tensor of the same shape in each.

    Returns
    -------
    torch.Tensor
        The sum; the argument itself if there is one process.

    Example
    -------
    >>> sum_over_processes(torch.ones(2))
    tensor([1., 1.])
    """
    if not several_processes():
        return x
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(x)


def gather_items(x: Tensor) -> Tensor:
    """Items of all processes, in the order in which they were dealt out.

    Arguments
    ---------
    x : torch.Tensor
        Items [B, ...] of this process, as many as of the others; without a
        gradient.

    Returns
    -------
    torch.Tensor
        Items [B · processes, ...]: the first of each process, then the second
        of each; the argument itself if there is one process.

    Example
    -------
    >>> gather_items(torch.tensor([3, 4]))
    tensor([3, 4])
    """
    if not several_processes():
        return x
    parts = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, x.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)
