"""What several processes have to tell each other.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch


def gather(value):
    """Collects what each process has.

    Arguments
    ---------
    value : object
        Anything that can be pickled.

    Returns
    -------
    list
        The values of all processes, in the same order in all of them; one
        value if there is one process.

    Example
    -------
    >>> gather("mine")
    ['mine']
    """
    if not torch.distributed.is_initialized():
        return [value]
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
