"""Row about processes: two of one thread against one of one thread.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import socket
import tempfile
import time
from pathlib import Path

import torch
from rows import Row
from steps import TrainingStep
from timing import summarise
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

PROCESSES = 2
STEPS = 3  # in a round, behind one that does not count


def _free_port():
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _train(rank, world_size, port, file):
    """Makes steps in one of several processes, and writes their seconds."""
    torch.set_num_threads(1)
    wrap = None
    if world_size > 1:
        distributed.init_process_group(
            "gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size
        )
        wrap = DistributedDataParallel
    step = TrainingStep(wrap=wrap)
    step()
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    if rank == 0:
        Path(file).write_text(repr(time.perf_counter() - began))
    if world_size > 1:
        distributed.destroy_process_group()


def step_seconds(world_size):
    """Time of the steps of some processes, each with a batch of its own.

    Arguments
    ---------
    world_size : int
        Number of processes.

    Returns
    -------
    float
        Seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seconds"
        multiprocessing.spawn(
            _train, (world_size, _free_port(), str(file)), world_size
        )
        return float(file.read_text())


def throughput(repeats):
    """Mixtures a second of two processes over those of one.

    Arguments
    ---------
    repeats : int
        Number of rounds.

    Returns
    -------
    Ratio
        As many times the mixtures of one.
    """
    seconds = {"one process": [], f"{PROCESSES} processes": []}
    for _ in range(min(repeats, 3)):  # Starting processes takes long.
        for name, world_size in zip(seconds, (1, PROCESSES)):
            seconds[name].append(step_seconds(world_size))
    return summarise(seconds, factor=PROCESSES)


ROWS = [
    Row(
        "mixtures a second, two gloo processes of one thread over one",
        1.7,
        False,
        throughput,
    )
]
