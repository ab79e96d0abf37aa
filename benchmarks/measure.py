"""How the benchmarks measure: in turns, by time or by the peak of memory."""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

from speechbrain_kmdanet.utils.report import write_report

RESULTS = Path(__file__).resolve().parents[1] / "results"
MEGABYTE = 2**20
Gauge = Callable[[], float]  # measures something once
Name = TypeVar("Name")


def parse_options(
    parser: argparse.ArgumentParser, repeats: int, arguments: list[str]
) -> argparse.Namespace:
    """Adds the options that all benchmarks have, and sets the threads.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Parser with the options of its own.
    repeats : int
        Number of rounds by default.
    arguments : list of str
        Command line without the program.

    Returns
    -------
    argparse.Namespace
        The options.
    """
    add = partial(parser.add_argument, type=int)
    text = f"rounds of each (default: {repeats})"
    add("--repeats", default=repeats, help=text)
    add("--threads", default=2, help="of PyTorch (default: 2)")
    text = "where to write (default: results/ of the repository)"
    add("--results", type=Path, default=RESULTS, metavar="RESULTS", help=text)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    return options


def report(path: Path, title: str, parts: list, device: str = "cpu") -> None:
    """Writes a report and prints it.

    Arguments
    ---------
    path : pathlib.Path
        Markdown file.
    title : str
        Its title.
    parts : list
        Paragraphs, and tables as pairs of header and lines.
    device : str
        What it was measured on.
    """
    print(write_report(path, title, parts, device))
    print(f"written to {path}")


def take_turns(
    gauges: Mapping[Name, Gauge], rounds: int, warm_up: int = 1
) -> dict[Name, list[float]]:
    """Measures things in turns, so that a busy machine slows all of them.

    Arguments
    ---------
    gauges : dict
        What measures each, by name.
    rounds : int
        Number of rounds.
    warm_up : int
        Number of rounds that come first and do not count.

    Returns
    -------
    dict
        List of measurements, one a round, by name.
    """
    found: dict[Name, list[float]] = {name: [] for name in gauges}
    for _ in range(warm_up + rounds):
        for name, gauge in gauges.items():
            found[name].append(gauge())
    return {name: values[warm_up:] for name, values in found.items()}


def seconds(function: Callable[[], Any]) -> float:
    """Measures the time of a call.

    Arguments
    ---------
    function : callable
        What to call.

    Returns
    -------
    float
        Seconds until the GPU is done, too, if there is one.
    """
    _wait()
    began = time.perf_counter()
    function()
    _wait()
    return time.perf_counter() - began


def peak_memory(function: Callable[[], Any], device: str = "cpu") -> float:
    """Measures the peak of the memory that the tensors of a call take.

    Arguments
    ---------
    function : callable
        What to call.
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
    # PyTorch counts no peak on the CPU, but its profiler sees what is
    # allocated, and freed: negative sizes in bytes.
    nodes: list[Any] = list(
        profiler.profiler.kineto_results.experimental_event_tree()
    )
    sizes = []
    while nodes:
        node = nodes.pop()
        nodes.extend(node.children)
        size = getattr(node.extra_fields, "alloc_size", None)
        if size is not None:
            sizes.append((node.start_time_ns, size))
    return max(accumulate(x for _, x in sorted(sizes)), default=0) / MEGABYTE


def _wait() -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
