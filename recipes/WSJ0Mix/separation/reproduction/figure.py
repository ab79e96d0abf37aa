"""Figure 1: the embeddings of one mixture of the test set."""

import csv
from pathlib import Path

import numpy as np
import torch

from reproduction.data import find_mixtures
from speechbrain_kmdanet.dataio.audio import (
    UnusableSource,
    list_recordings,
    read_source,
)
from speechbrain_kmdanet.dataio.wsj0mix import mixture_folder
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.processing.bins import flatten_bins
from speechbrain_kmdanet.processing.separation import separate
from speechbrain_kmdanet.utils.jobs import write_whole
from speechbrain_kmdanet.utils.plots_embeddings import (
    plot_embeddings,
    view_embeddings,
)
from speechbrain_kmdanet.utils.report import (
    describe_environment,
    format_markdown,
    format_source,
)

TEXT = """\
# Figure 1: embeddings of a mixture, {data}

![Embeddings of the mixture {mixture}]({picture})

{source}; mixture {mixture} of tt.

Dots are the bins within 40 dB of the loudest one, larger when louder, in the
plane of the first two principal components of all bins, weighted by energy. The
attractors of the ground truth are
{oracle}.

{table}
{about}"""
EQ_1 = "those of Eq. 1, which this network was trained with"
EQ_6 = "means of the bins that a talker dominates, weighted by energy (Eq. 6)"


def draw_figure_1(
    separator_folder: Path,
    source: str,
    data_folder: Path,
    mixture: str | None,
    genders: Path | None,
    data: str,
    folder: Path,
    command: str,
) -> str:
    """Draws the embeddings of a mixture of tt, and the attractors.

    Arguments
    ---------
    separator_folder : pathlib.Path
        A separator that train.py wrote.
    source : str
        What it is called.
    data_folder : pathlib.Path
        Mixtures of two talkers in the layout of WSJ0-mix.
    mixture : str
        Name of the mixture; None for the first one.
    genders : pathlib.Path
        CSV file with the columns path and gender of the recordings: the first
        mixture of two men is drawn, as in the paper.
    data : str
        Name of the data.
    folder : pathlib.Path
        Where figure1_DATA.png and figure1_DATA.md go.
    command : str
        Command line that asked for it.

    Returns
    -------
    str
        Markdown.

    Raises
    ------
    UserError
        If there is no such mixture, or the separator has no embeddings.
    """
    separator = AttractorSeparation.from_hparams(separator_folder).eval()
    rate = int(separator.hparams.sample_rate)
    tt = mixture_folder(data_folder, rate, "min", "tt")
    mixture = _find(tt / "mix", mixture, genders)
    mods = separator.mods
    with torch.no_grad():
        signals = _read(tt, mixture).to(separator.device)
        separation = separate(
            mods.encoder,
            mods.masknet,
            mods.decoder,
            signals[:1],
            sources=signals[1:].T.unsqueeze(0),
            outputs=("embeddings",),
        )
        spectra = separation.spectrum, separation.source_spectra[0]
    if separation.embeddings is None:
        raise UserError(
            f"the separator in {separator_folder} has no embeddings to draw: "
            "give one that clusters embeddings"
        )
    magnitudes = flatten_bins(torch.cat(spectra).abs())
    # DANet is trained to have its attractors by Eq. 1.
    training = getattr(mods.masknet, "train_attractors", None)
    share = getattr(training, "energetic", None)
    view = view_embeddings(
        separation.embeddings[0], magnitudes[0].square(), magnitudes[1:], share
    )
    picture = folder / f"figure1_{data}.png"
    folder.mkdir(parents=True, exist_ok=True)
    plot_embeddings(
        view, picture, f"Embeddings of a mixture of two talkers\n{mixture}"
    )
    lines = [[f"{kind} k-means", f"{x:.2f}"] for kind, x in view.errors.items()]
    text = TEXT.format(
        data=data,
        mixture=mixture,
        picture=picture.name,
        source=source,
        oracle=EQ_6 if share is None else EQ_1,
        table=format_markdown(
            ["centroids", "mean distance from these, over their norm"], lines
        ),
        about=format_source(
            {**describe_environment(), "command": command}, "Drawn on"
        ),
    )
    with write_whole(folder / f"figure1_{data}.md") as path:
        path.write_text(text, encoding="utf-8")
    return text


def _find(folder: Path, name: str | None, genders: Path | None) -> str:
    """Name of a mixture: by default, the first one, or that of two men."""
    names = list(find_mixtures(folder))
    if name is not None and name not in names:
        raise UserError(f"there is no mixture {name} in {folder}")
    if name is None and genders is not None:
        men = _read_men(genders)
        # stem1_snr1_stem2_snr2
        names = [x for x in names if men.issuperset(x.split("_")[::2])]
        if not names:
            raise UserError(
                f"{folder} has no mixture of two men who are in {genders}: "
                "give another file, or leave --genders out"
            )
    return name or names[0]


def _read_men(file: Path) -> set[str]:
    """Names of the recordings of men, by a CSV file."""
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            return {
                Path(row["path"]).stem
                for row in csv.DictReader(lines)
                if row["gender"].lower().startswith("m")
            }
    except (OSError, KeyError, ValueError, AttributeError, csv.Error) as error:
        raise UserError(
            f"--genders {file} cannot be read ({error}): give a CSV file with "
            "the columns path and gender"
        ) from error


def _read(folder: Path, name: str) -> torch.Tensor:
    """A mixture and its two sources [3, L]."""
    signals = []
    for part in ("mix", "s1", "s2"):
        path = list_recordings(folder / part).get(name)
        if path is None:
            raise UserError(f"there is no recording {name} in {folder / part}")
        try:
            signals.append(read_source(path)[0])
        except UnusableSource as problem:
            raise UserError(f"{path}: {problem}") from problem
    if len({len(signal) for signal in signals}) > 1:
        raise UserError(
            f"the mixture {name} of {folder} and its sources differ in length: "
            "build this mixture again"
        )
    return torch.from_numpy(np.stack(signals)).float()
