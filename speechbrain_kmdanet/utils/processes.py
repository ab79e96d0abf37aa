"""The processes of a training that torchrun started."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from speechbrain.utils.distributed import ddp_init_group
from torch import distributed

from speechbrain_kmdanet.errors import UserError


@contextmanager
def process_group(run_opts: Mapping[str, Any]) -> Iterator[None]:
    """A block in which the processes are a group; a single one is none.

    The group ends with the block, however that ends: the threads of one that
    is left to the end of Python may abort the process.

    Arguments
    ---------
    run_opts : dict
        SpeechBrain's run options.

    Raises
    ------
    UserError
        If there can be no such group.

    Example
    -------
    >>> with process_group({"distributed_backend": "gloo"}):
    ...     distributed.is_initialized()
    False
    """
    try:
        ddp_init_group(run_opts)
    except ValueError as error:
        raise UserError(
            f"--distributed_backend {run_opts['distributed_backend']}: {error}; "
            "give gloo for processes on the CPU, or start as many as there are "
            "GPUs"
        ) from error
    try:
        yield
    finally:
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
