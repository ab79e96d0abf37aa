"""Figure 1: the embeddings of one mixture of the test set.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import numpy as np
import torch

from reproduction.formatting import format_markdown
from reproduction.provenance import describe_environment
from speechbrain_kmdanet.dataio.source_files import UnusableSource, read_source
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.utils.embedding_plot import (
    plot_embeddings,
    view_embeddings,
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
Drawn on {date}, {machine}; {versions}; commit {commit}; with

```shell
{command}
```
"""
EQ_1 = "those of Eq. 1, which this network was trained with"
EQ_6 = "means of the bins that a talker dominates, weighted by energy (Eq. 6)"


def draw_figure_1(
    separator_folder, source, data_folder, mixture, stem, command
):
    """Draws the embeddings of a mixture of tt, and the attractors.

    Arguments
    ---------
    separator_folder : pathlib.Path
        A separator that train.py wrote.
    source : str
        What it is called.
    data_folder : pathlib.Path
        Mixtures of two speakers in the layout of WSJ0-mix.
    mixture : str
        Name of the mixture; None for the first one.
    stem : pathlib.Path
        Path of the picture and its text, without a suffix.
    command : str
        Command line that asked for it.

    Returns
    -------
    str
        Markdown.

    Raises
    ------
    ValueError
        If there is no such mixture, or the separator has no embeddings.
    """
    separator = AttractorSeparation.from_hparams(separator_folder).eval()
    rate = int(separator.hparams.sample_rate)
    folder = data_folder / f"wav{rate // 1000}k" / "min" / "tt"
    mixture = _find(folder / "mix", mixture)
    # DANet is trained to have its attractors by Eq. 1.
    masknet = separator.mods.masknet
    training = getattr(masknet, "train_attractors", None)
    energetic = getattr(training, "energetic", None)
    with torch.no_grad():
        signals = _read(folder, mixture)
        spectra = separator.mods.encoder(signals.to(separator.device))
        _, embeddings = masknet(spectra[:1], None, 2, with_embeddings=True)
    if embeddings is None:
        raise ValueError(
            f"the separator in {separator_folder} has no embeddings to draw: "
            "give one that clusters embeddings"
        )
    magnitudes = spectra.abs().transpose(1, 2).flatten(1)
    view = view_embeddings(
        embeddings[0], magnitudes[0].square(), magnitudes[1:], energetic
    )
    stem.parent.mkdir(parents=True, exist_ok=True)
    picture = stem.with_suffix(".png")
    plot_embeddings(
        view, picture, f"Embeddings of a mixture of two talkers\n{mixture}"
    )
    text = TEXT.format(
        data=stem.name.partition("_")[2],
        mixture=mixture,
        picture=picture.name,
        source=source,
        oracle=EQ_6 if energetic is None else EQ_1,
        table=format_markdown(
            ["centroids", "mean distance from these, over their norm"],
            [
                [f"{kind} k-means", f"{x:.2f}"]
                for kind, x in view.errors.items()
            ],
        ),
        command=command,
        **describe_environment(),
    )
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    return text


def _find(folder, name):
    """Name of a mixture, the first one by default."""
    names = sorted(path.stem for path in folder.glob("*.wav"))
    if not names:
        raise ValueError(f"there are no WAV files in {folder}")
    if name is not None and name not in names:
        raise ValueError(f"there is no mixture {name} in {folder}")
    return name or names[0]


def _read(folder, name):
    """A mixture and its two sources [3, L]."""
    signals = []
    for part in ("mix", "s1", "s2"):
        path = folder / part / f"{name}.wav"
        try:
            signals.append(read_source(path)[0])
        except UnusableSource as problem:
            raise ValueError(f"{path}: {problem}") from problem
    return torch.from_numpy(np.stack(signals)).float()
