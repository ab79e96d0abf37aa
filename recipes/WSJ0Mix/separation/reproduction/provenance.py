"""Where figures come from: date, machine, versions and commit.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import platform
import re
import subprocess
from datetime import date
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PACKAGES = {"PyTorch": "torch", "SpeechBrain": "speechbrain"}


def describe_environment(device=None):
    """Describes what a run is made with; no names of hosts or users.

    Arguments
    ---------
    device : str
        Device that the run was told to use, if it was.

    Returns
    -------
    dict
        date, machine, versions and commit.
    """
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {version(it)}" for name, it in PACKAGES.items()]
    return {
        "date": date.today().isoformat(),
        "machine": _describe_machine(device),
        "versions": ", ".join(versions),
        "commit": _commit(),
    }


def _describe_machine(device):
    """Model of the GPU, or of the CPU with the number of threads."""
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        info = ""
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.M)
    name = model[1] if model else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def _commit():
    """Commit of this repository, "-dirty" with changes; or unknown."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        described = subprocess.run(
            command, cwd=FOLDER, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
