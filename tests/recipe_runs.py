"""How the tests run the recipe: tiny settings, and processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "WSJ0Mix" / "separation"
# Of the recipe's files, those that name a system; others are layers.
SYSTEMS = sorted(
    path.stem
    for path in (RECIPE / "hparams").glob("*.yaml")
    if f"\nsystem: {path.stem}\n" in path.read_text(encoding="utf-8")
)
PROBE = Path(__file__).resolve().parent / "probe_train.py"
TINY = {
    "lr": 0.01,
    "batch_size": 4,
    "segment_seconds": 1.0,
    "compute_sdr": False,
    "num_examples": 0,
    "device": "cpu",
    # Loaders without workers: starting them takes longer than reading.
    **{
        f"{stage}_loader_options": "{num_workers: 0}"
        for stage in ("train", "valid", "test")
    },
}
# Size of the demo's data.
MINIMIX = dict(
    speakers=(4, 3, 3), utterances=2, mixtures=(4, 2, 2), progress=False
)
# Sizes of the common trunk, what systems need beside them, and the sizes of
# systems that have networks of their own.
TRUNK = {"hidden_size": 32, "num_layers": 1, "embedding_dim": 8}
BESIDE = {
    "dpcl_plus": {"enhancement_size": 16},
    "upit": {"embedding_dim": 2},
    "one_and_rest": {"embedding_dim": 2},
}
OWN = {
    "conv_tasnet": {
        "num_filters": 32,
        "bottleneck_size": 16,
        "hidden_size": 16,
        "num_blocks": 3,
        "num_repeats": 1,
    },
    "dprnn": {
        "num_filters": 16,
        "chunk_size": 20,
        "hidden_size": 8,
        "num_repeats": 1,
    },
    "sepformer": {
        "num_filters": 16,
        "chunk_size": 50,
        "hidden_size": 16,
        "num_heads": 2,
        "num_layers": 1,
        "num_repeats": 1,
    },
    "blstm_tasnet": {"num_filters": 16, "hidden_size": 16, "num_layers": 3},
    "furcanext": {
        "num_filters": 16,
        "bottleneck_size": 8,
        "hidden_size": 8,
        "num_blocks": 2,
        "num_repeats": 1,
    },
    "skim": {
        "num_filters": 16,
        "chunk_size": 20,
        "hidden_size": 8,
        "num_repeats": 2,
    },
    "resepformer": {
        "num_filters": 16,
        "chunk_size": 50,
        "hidden_size": 16,
        "num_heads": 2,
        "num_layers": 1,
        "num_repeats": 2,
    },
    "oracle": {},
}


def command_line(system, output_folder, *flags, sizes=None, **options):
    """Command line of train.py for a tiny network."""
    if sizes is None:
        sizes = OWN.get(system, {**TRUNK, **BESIDE.get(system, {})})
    options = {**TINY, **sizes, "output_folder": output_folder, **options}
    arguments = [str(RECIPE / "hparams" / f"{system}.yaml"), "--noprogressbar"]
    for key, value in options.items():
        arguments += [f"--{key}", str(value)]
    return [*arguments, *flags]


def run_python(*arguments, timeout=300):
    """Runs Python in a process that leaves no children behind.

    Returns
    -------
    returncode : int
        Exit status.
    output : str
        What the process wrote on both streams.
    """
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output
