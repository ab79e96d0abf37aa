"""Peak of the memory that PyTorch takes while a function runs.

Authors
 * The speechbrain_kmdanet developers 2026
"""

from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

MEGABYTE = 2**20


def peak_memory(function, device="cpu"):
    """Measures the peak of the memory of tensors.

    Arguments
    ---------
    function : callable
        What to run.
    device : str
        Whose memory.

    Returns
    -------
    float
        Megabytes at the peak, above what is taken before.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / MEGABYTE
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        function()
    sizes = sorted(_allocations(profiler))
    return max(accumulate(size for _, size in sizes), default=0) / MEGABYTE


def _allocations(profiler):
    """Times and sizes in bytes of allocations; negative where memory is freed.

    PyTorch counts no peak on the CPU, but its profiler sees every allocation.
    """
    nodes = list(profiler.profiler.kineto_results.experimental_event_tree())
    while nodes:
        node = nodes.pop()
        nodes.extend(node.children)
        size = getattr(node.extra_fields, "alloc_size", None)
        if size is not None:
            yield node.start_time_ns, size
