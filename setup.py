"""Installs speechbrain_kmdanet: ``pip install .`` or ``pip install -e .``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
PACKAGE = "speechbrain_kmdanet"


def read_version():
    """Returns the version written in the package, without importing it."""
    text = (ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.M).group(1)


def read_long_description():
    """Returns the README, or nothing where there is none (a bare sdist)."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


INSTALL_REQUIRES = [
    # torchaudio ends at 2.11, and its compiled part only loads beside the
    # torch that it was built for: from torch 2.12 on `import torchaudio`
    # fails, and `import speechbrain` with it. Raise both ceilings together,
    # once SpeechBrain runs without torchaudio.
    "torch>=2.4,<2.12",
    "torchaudio>=2.4,<2.12",
    "speechbrain>=1.0",
    "hyperpyyaml>=1.2",
    "filelock>=3.8",
    # The first one that knows draft 2020-12, which hparams/schema.yaml is in
    "jsonschema>=4.0",
    "numpy>=1.22",
    "scipy>=1.8",
    "soundfile>=0.12.1",
    "torchmetrics>=1.0",
    "matplotlib>=3.5",
    "tqdm>=4.42",
]

# Synthesises the demo's speech; the wheel ships espeak-ng and its voices.
DEMO = ["espeakng-loader>=0.2.4"]

# What the benchmarks compare with, and the speech that they separate.
BENCH = [
    "scikit-learn>=1.1",
    "torch_kmeans>=0.2",
    # bss_eval_sources is announced to be gone in 0.9.
    "mir_eval>=0.7,<0.9",
    *DEMO,
]

# Writes a separator as ONNX; onnxruntime runs it.
ONNX = ["onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"]

# Serves a page; from 6 on, what a page looks like is said when it is launched.
PAGE = ["gradio>=6.0"]

# setuptools and wheel make the wheel that is tested.
TEST = [
    "pytest>=7.4",
    "pytest-xdist>=3.3",
    "hypothesis>=6.90",
    "setuptools>=61.0",
    "wheel",
    *BENCH,
    *ONNX,
    *PAGE,
    "selenium>=4.11",  # where there is a Chromium
]

# ruff and yamllint are the versions that SpeechBrain pins; the same ones are
# in .pre-commit-config.yaml.
DEV = [
    "ruff==0.12.4",
    "yamllint==1.35.1",
    "pre-commit>=2.3",
    "mypy>=1.8",
    *TEST,
]

setup(
    name=PACKAGE,
    version=read_version(),
    description=(
        "SpeechBrain plugin for speech separation by attractors in an "
        "embedding space: DANet, k-means DANet and their relatives"
    ),
    long_description=read_long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords=[
        "speech separation",
        "deep attractor network",
        "k-means",
        "speechbrain",
        "pytorch",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=[f"{PACKAGE}*"]),
    package_data={PACKAGE: ["py.typed", "pretrained/*/*", "examples/*"]},
    entry_points={
        "console_scripts": [f"kmdanet = {PACKAGE}.command_line:main"]
    },
    install_requires=INSTALL_REQUIRES,
    extras_require={
        "demo": DEMO,
        "onnx": ONNX,
        "page": PAGE,
        "bench": BENCH,
        "test": TEST,
        "dev": DEV,
    },
    zip_safe=False,
)
