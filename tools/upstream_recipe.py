"""The recipe of the overlay: YAML files, rows of the list of recipes, README."""

import csv
import io
import re
from functools import cache
from pathlib import Path
from typing import Any

import ruamel.yaml

from speechbrain_kmdanet.utils.yaml_layers import read_layers

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "speechbrain_kmdanet"
RECIPE = ROOT / "recipes" / "WSJ0Mix" / "separation"
OVERLAY = Path("recipes/WSJ0Mix/attractors")
LISTS = Path("tests/samples/annotation/attractors")
# Where SpeechBrain has a module of that name, or where ours says too little.
RENAMED = {
    "errors": "utils.user_errors",
    "inference.separation": "inference.attractor_separation",
    "nnet.schedulers": "nnet.interval_scheduler",
}
# Settings that shape debug runs: few, small and quick.
SMALL = {
    "number_of_epochs": 2,
    "batch_size": 1,
    "hidden_size": 16,
    "num_layers": 1,
    "num_blocks": 1,
    "num_repeats": 1,
    "num_filters": 16,
    "chunk_size": 20,
    "num_heads": 2,
    "compute_sdr": False,
}
CHOICES = ("trunk", "schedule", "tracking")
NEEDS_TWO = {"skim": {"num_repeats": 2}, "resepformer": {"num_repeats": 2}}
README = """\
# Separation by attractors with WSJ0Mix

A network embeds every time-frequency bin of a mixture; attractors, one a talker, are means
of embeddings; masks say how like a bin is to each attractor, and there are as many talkers
as attractors are asked for. Classic DANet finds attractors by the ground truth in training
and by k-means at inference; k-means DANet by k-means in both.

{about}
E1 to E3 say how DANet finds attractors at inference: those fixed after training, those of
k-means, and those refined from trained anchors.

# How to run

Install what is needed beside SpeechBrain, build the mixtures (as for
`../separation`), and train:

```shell
pip install -r extra_requirements.txt
python train.py hparams/{system}.yaml --data_folder /data/wsj0-mix/2speakers
```

Every key of a YAML file can be given on the command line. A folder of lists
(`tr.csv`, `cv.csv`, `tt.csv`, with the columns ID, mix_wav, s1_wav, s2_wav) is a
`data_folder`, too, and several folders, of two and of three talkers, are trained on
together: `--data_folder "[.../2speakers, .../3speakers]"`.

New mixtures in every epoch, of one folder a talker, take the place of those of `tr`:

```shell
python train.py hparams/{system}.yaml --data_folder /data/wsj0-mix/2speakers \\
    --dynamic_mixing /data/speakers/tr --epoch_size 20000
```

Several GPUs:

```shell
torchrun --nproc_per_node=2 train.py hparams/{system}.yaml \\
    --data_folder /data/wsj0-mix/2speakers
```

The same command goes on with a training that was stopped, also within an epoch. At the end
the best checkpoint is evaluated on `tt` (SI-SDRi, SDRi) and written as a folder for
`SepformerSeparation.from_hparams`.

# Results

WSJ0 is licensed and was not at hand: these figures are of so762-mix, real read speech of
talkers that the networks have not heard, mixed by WSJ0-mix's rules, and cannot be compared
with the paper's in dB. SI-SDRi in dB on 1,000 mixtures each, with 95 % intervals.

{results}

# Training time and hardware

The separator of the first table, of the paper's network, has seen 126 hours of mixtures; it
was trained in 6 h 17 min on CPU cores that did other work, too (Intel Xeon with AVX-512). The
small networks of the second see 17 minutes of mixtures in some 6 s on one core of an AMD
EPYC, with `--precision bf16`.

# References

1. Z. Chen, Y. Luo and N. Mesgarani, "Deep attractor network for single-microphone speaker
   separation", ICASSP 2017.
2. Y. Luo, Z. Chen and N. Mesgarani, "Speaker-independent speech separation with deep
   attractor network", IEEE/ACM TASLP 26(4), 2018.
3. C. Cadoux, S. Uhlich, M. Ferras and Y. Mitsufuji, "Closing the training/inference gap for
   deep attractor networks".
"""


def rewrite(text: str) -> str:
    """A file with SpeechBrain's names of modules, for its Python versions.

    Arguments
    ---------
    text : str
        Python, YAML or Markdown.

    Returns
    -------
    str
        The same with other names; absolute values in docstrings are no
        substitutions of Sphinx, and annotations are not evaluated.
    """
    for ours, theirs in RENAMED.items():
        pattern = rf"{PACKAGE}\.{re.escape(ours)}\b"
        text = re.sub(pattern, f"speechbrain.{theirs}", text)
    # Operators of PyTorch have a name of their own.
    text = re.sub(r"(?<=\btorch\.ops\.)kmdanet\b", "speechbrain", text)
    text = re.sub(r"\bkmdanet(?=::)", "speechbrain", text)
    return text.replace(PACKAGE, "speechbrain")


@cache
def _comments() -> dict[str, str]:
    """Comments of the YAML files by the line that each explains."""
    said: dict[str, set[str]] = {}
    for folder in (RECIPE / "hparams", ROOT / "hparams"):
        for file in folder.glob("*.yaml"):
            for line in file.read_text("utf-8").splitlines():
                setting, _, comment = line.partition(" # ")
                setting = re.sub(r": null$", ":", setting.rstrip())
                said.setdefault(setting, set()).add(comment)
    only = {key: x.pop() for key, x in said.items() if len(x) == 1}
    return {key: comment for key, comment in only.items() if comment}


@cache
def flatten(system: str) -> str:
    """The YAML file of a system with all of its layers, as one.

    Arguments
    ---------
    system : str
        Its name.

    Returns
    -------
    str
        YAML.
    """
    file = RECIPE / "hparams" / f"{system}.yaml"
    settings = read_layers(file)
    title = [
        line
        for line in file.read_text("utf-8").split("\n\n")[0].splitlines()
        if line.startswith("#")
    ]
    # What chose a layer has done so.
    for key in CHOICES:
        settings.pop(key, None)
    # The seed is set before anything is made, and all before it is used.
    seeds = ("seed", "__set_seed")
    order = [*seeds, *(key for key in settings if key not in seeds)]
    order = _used_after(order, settings)
    scripts = "".join(
        (RECIPE / x).read_text("utf-8") for x in ("train.py", "prepare_data.py")
    )
    written = {key: _explained(key, settings[key]) for key in order}
    # Some systems have no use for what their trunk says.
    order = [
        key
        for key in order
        if key in scripts
        or any(f"<{key}>" in x for y, x in written.items() if y != key)
        or key.startswith("__")
    ]
    kept = [
        line
        for line in "".join(written[key] for key in order).splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]
    return rewrite("\n".join([*title, "", *kept, ""]))


def _explained(key: str, value: Any) -> str:
    """YAML of a key, with the comment that it has in its layer."""
    text = _dump({key: value})
    comment = _comments().get(text.rstrip())
    return f"{text.rstrip()} # {comment}\n" if comment else text


def _used_after(order: list[str], settings: Any) -> list[str]:
    """Keys, each behind those that it refers to, otherwise in their order."""
    placed: list[str] = []

    def place(key: str) -> None:
        """Places a key behind what it needs."""
        if key in placed:
            return
        for line in _dump({key: settings[key]}).splitlines():
            if "!ref" in line or "!copy" in line:
                for other in re.findall(r"<(\w+)>", line):
                    if other in order and other != key:
                        place(other)
        placed.append(key)

    for key in order:
        place(key)
    return placed


def systems() -> list[str]:
    """All systems of the recipe."""
    files = sorted((RECIPE / "hparams").glob("*.yaml"))
    return [
        file.stem
        for file in files
        if f"\nsystem: {file.stem}\n" in file.read_text("utf-8")
    ]


@cache
def flatten_source(system: str) -> str:
    """The YAML files of a system, with the names of our modules."""
    return _dump(read_layers(RECIPE / "hparams" / f"{system}.yaml"))


def _dump(settings: Any) -> str:
    """YAML of some settings, on lines of any length."""
    yaml, stream = ruamel.yaml.YAML(), io.StringIO()
    yaml.width = 1 << 20
    yaml.indent(mapping=4, sequence=6, offset=4)
    yaml.dump(settings, stream)
    truth = re.compile(r"(?<=: )(true|false)(?=$| +#)", re.MULTILINE)
    return truth.sub(lambda found: found[1].capitalize(), stream.getvalue())


def debug_flags(system: str) -> str:
    """Flags of a quick run of a system on SpeechBrain's samples."""
    keys = read_layers(RECIPE / "hparams" / f"{system}.yaml")
    small = {**SMALL, **NEEDS_TWO.get(system, {})}
    flags = {key: x for key, x in small.items() if key in keys}
    text = " ".join(f"--{key}={value}" for key, value in flags.items())
    return f"--data_folder={LISTS.as_posix()} --sample_rate=16000 {text}"


def made_by(system: str) -> list[str]:
    """Files that a run of a system makes; an oracle is not trained."""
    files = ["log.txt", "env.log", "train.py", "hyperparams.yaml"]
    return files if system == "oracle" else ["train_log.txt", *files]


def rows(names: list[str]) -> list[dict[str, str]]:
    """Rows of systems for SpeechBrain's list of recipes."""
    common = {
        "Task": "Separation (2mix)",
        "Dataset": "WSJ0Mix",
        "Script_file": f"{OVERLAY.as_posix()}/train.py",
        "Data_prep_file": f"{OVERLAY.as_posix()}/prepare_data.py",
        "Readme_file": f"{OVERLAY.as_posix()}/README.md",
    }
    return [
        {
            **common,
            "Hparam_file": f"{OVERLAY.as_posix()}/hparams/{name}.yaml",
            "test_debug_flags": debug_flags(name),
            "test_debug_checks": f"file_exists=[{','.join(made_by(name))}]",
        }
        for name in names
    ]


def add_rows(file: Path, wanted: list[dict[str, str]]) -> bool:
    """Brings rows into a list of recipes; whether it had others.

    Arguments
    ---------
    file : pathlib.Path
        The list.
    wanted : list of dict
        The rows.

    Returns
    -------
    bool
        Whether the list has changed; rows of other recipes have not.
    """
    before = file.read_text("utf-8")
    lines = before.splitlines()
    fields = next(csv.reader(lines[:1]))
    for row in wanted:
        stream = io.StringIO()
        csv.DictWriter(stream, fields, "", lineterminator="").writerow(row)
        places = [
            place
            for place, line in enumerate(lines)
            if f",{row['Hparam_file']}," in line
        ] or [len(lines)]
        lines[places[0] : places[0] + 1] = [stream.getvalue()]
    after = "\n".join([*lines, ""])
    if after != before:
        file.write_text(after, encoding="utf-8")
    return after != before


def sample_lists(checkout: Path) -> dict[Path, str]:
    """Lists of SpeechBrain's samples of mixtures, in our columns."""
    folder = checkout / "tests" / "samples" / "separation"
    found = sorted(folder.glob("mixture_*.wav"))
    lines = ["ID,mix_wav,s1_wav,s2_wav"]
    for path in found:
        number = path.stem.rpartition("_")[2]
        parts = [path.name, f"source1_{number}.wav", f"source2_{number}.wav"]
        paths = [f"../../separation/{part}" for part in parts]
        lines.append(",".join([path.stem, *paths]))
    text = "\n".join([*lines, ""])
    return {LISTS / f"{x}.csv": text for x in ("tr", "cv", "tt")}


def results_tables() -> str:
    """The tables of measured figures in our README."""
    text = (ROOT / "README.md").read_text("utf-8")
    begin = text.index("\n## Results\n")
    section = text[begin : text.index("\n## ", begin + 1)]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    return "\n".join(tables).strip()


def readme(names: list[str]) -> str:
    """README of the recipe, in the headings of SpeechBrain's."""
    text = (RECIPE / "README.md").read_text("utf-8")
    begin = text.index("| system |")
    about = text[begin : text.index("\n\n", begin)]
    kept = [
        line
        for line in about.splitlines()
        if not re.findall(r"`(\w+)\.yaml`", line)
        or set(re.findall(r"`(\w+)\.yaml`", line)) & set(names)
    ]
    return README.format(
        about="\n".join([*kept, ""]),
        system=names[0],
        results=results_tables(),
    )
