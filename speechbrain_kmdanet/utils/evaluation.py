"""Evaluation of separated mixtures: per utterance and as means.

SI-SDR is computed in float64 over the true length of each utterance, with the
permutation of highest SI-SDR; SDR is that of BSS Eval v3, as mir_eval has it,
with the same permutation. "Improvement" is the gain over the unprocessed mixture.

No special case decides a mean. Scores are from −80 to 80 dB, and an estimate
that is silent or not finite has the least. References without sound have no
score. A mixture of one talker alone has no improvement: what is separated
already can only be made worse. All of these are counted.
"""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechbrain_kmdanet.nnet.loss.separation import (
    LIMIT,
    best_permutation,
    pairwise_si_sdr,
    permute_sources,
    si_sdr,
)
from speechbrain_kmdanet.nnet.parallel import several_processes
from speechbrain_kmdanet.utils.jobs import write_whole

# Quantile of the normal distribution for intervals of 95 %.
Z_95 = 1.959964
# What a row counts beside scores, and what the line of a report calls it.
COUNTED = {
    "silent_sources": "silent references",
    "failed_estimates": "failed estimates",
}
ABOUT = "id", "num_spks", *COUNTED
# dB: a mixture that is a source up to the rounding of its samples.
SEPARATED = 50.0


def gather(value: Any) -> list[Any]:
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
    if not several_processes():
        return [value]
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def evaluate_utterance(
    mixture: Tensor,
    sources: Tensor,
    estimates: Tensor,
    compute_sdr: bool = False,
) -> tuple[dict[str, Any], Tensor]:
    """Scores the separation of one mixture.

    Sources that are silent, or only an offset, have no SDR; they are left out
    of the means.

    Arguments
    ---------
    mixture : torch.Tensor
        Mixture [L].
    sources : torch.Tensor
        True sources [L, K].
    estimates : torch.Tensor
        Estimated sources in any order [L, K].
    compute_sdr : bool
        Whether to compute the SDR too, which is slow.

    Returns
    -------
    scores : dict
        Means over the sources that are not silent of si_sdr and si_sdri, and
        of sdr and sdri if asked for, in dB (NaN if all sources are silent;
        improvements also if the mixture is one source alone, or silent), and
        the numbers num_spks of sources, silent_sources and failed_estimates.
    ordered : torch.Tensor
        Estimates in the order of the sources [L, K]; zeros for those that are
        not finite.

    Example
    -------
    >>> sources = torch.randn(800, 2)
    >>> estimates = sources.flip(1) + 0.01 * torch.randn(800, 2)
    >>> scores, _ = evaluate_utterance(sources.sum(1), sources, estimates)
    >>> 35 < scores["si_sdr"] < 45
    True
    """
    mixture, sources, estimates = (
        x.detach().cpu().double().unsqueeze(0)
        for x in (mixture, sources, estimates)
    )
    broken = ~estimates.isfinite().all(1)  # [1, K]
    estimates = estimates.masked_fill(broken.unsqueeze(1), 0.0)
    active = _has_sound(sources)  # [1, K]
    pairwise = pairwise_si_sdr(estimates, sources)
    permutation = best_permutation(-pairwise * active.unsqueeze(2))
    ordered = permute_sources(estimates, permutation, dim=2)
    unprocessed = mixture.unsqueeze(2).expand_as(sources)
    failed = active & ~_has_sound(ordered) | broken.gather(1, permutation)

    keep = active[0]
    count, num_spks = int(keep.sum()), len(keep)
    mixed = si_sdr(unprocessed, sources)[0, keep] < SEPARATED
    improves = bool(mixed.any() and _has_sound(unprocessed).all())
    measures: dict[str, Callable[[Tensor], Any]] = {
        "si_sdr": lambda x: si_sdr(x, sources)[0, keep]
    }
    if compute_sdr:
        measures["sdr"] = lambda x: _sdr(sources[:, :, keep], x[:, :, keep])
    scores: dict[str, Any] = {
        "num_spks": num_spks,
        "silent_sources": num_spks - count,
        "failed_estimates": int(failed.sum()),
    }
    for name, measure in measures.items():
        value = improvement = math.nan
        if count:
            value = float(measure(ordered).mean())
        if improves:
            improvement = value - float(measure(unprocessed).mean())
        scores |= {name: value, f"{name}i": improvement}
    return scores, ordered[0].float()


def _has_sound(waveforms: Tensor) -> Tensor:
    """Whether there is more than an offset in waveforms [B, L, K]; [B, K]."""
    centred = waveforms - waveforms.mean(1, keepdim=True)
    # What rounding leaves of an offset is less.
    return centred.square().sum(1) > 1e-12 * waveforms.square().sum(1)


def _sdr(sources: Tensor, estimates: Tensor) -> Tensor:
    """SDR [K] of sources, none silent, and estimates [1, L, K]."""
    # It is slow to import.
    from torchmetrics.functional.audio import signal_distortion_ratio

    # Without a little on the diagonal, a pure tone may have no best filter.
    sdr = signal_distortion_ratio(
        estimates[0].T, sources[0].T, filter_length=512, load_diag=1e-12
    )
    # NaN: by rounding, an estimate explains more than all of itself.
    sdr = sdr.nan_to_num(nan=LIMIT).clamp(-LIMIT, LIMIT)
    return torch.where(_has_sound(estimates)[0], sdr, -LIMIT)


class SeparationReport:
    """Collects the scores of a test set.

    Example
    -------
    >>> report = SeparationReport()
    >>> report.add("a", {"num_spks": 2, "silent_sources": 0, "si_sdri": 11.0})
    >>> report.add("b", {"num_spks": 3, "silent_sources": 0, "si_sdri": 9.0})
    >>> summary = report.summary()
    >>> summary["si_sdri"]["mean"]
    10.0
    >>> summary["by_num_spks"]["3"]["si_sdri"]["mean"]
    9.0
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, utterance: str, scores: dict[str, Any]) -> None:
        """Adds the scores of one utterance.

        Arguments
        ---------
        utterance : str
            Its name.
        scores : dict
            Its scores, see :func:`evaluate_utterance`.
        """
        self.rows.append({"id": utterance, **scores})

    def gather(self) -> None:
        """Takes in what the other processes have scored.

        An utterance that several of them have counts once. All processes have
        to call this; afterwards all have the same report.
        """
        rows = {row["id"]: row for rows in gather(self.rows) for row in rows}
        self.rows = list(rows.values())

    def summary(self) -> dict[str, Any]:
        """Means with 95 % intervals over the utterances.

        Returns
        -------
        dict
            For each score a dict of mean and ci95 (half the width of the
            interval), in dB, both None without utterances, and scored, the
            number of utterances that have it; the numbers of utterances, of
            silent sources and of failed estimates; num_spks, and, if it is a
            list of several, such a dict for each of them in by_num_spks, whose
            keys are strings.
        """
        groups: dict[int, list[dict[str, Any]]] = {}
        for row in self.rows:
            groups.setdefault(row["num_spks"], []).append(row)
        numbers = sorted(groups)
        result = _summarise(self.rows)
        result["num_spks"] = numbers[0] if len(numbers) == 1 else numbers
        if len(numbers) > 1:
            result["by_num_spks"] = {
                str(number): _summarise(groups[number]) for number in numbers
            }
        return result

    def write(self, folder: str | Path, **about: Any) -> None:
        """Writes per_utterance.csv and summary.json, each whole or not at all.

        Arguments
        ---------
        folder : str or pathlib.Path
            Where to write; made if it is not there.
        **about : dict
            What else the summary should say.
        """
        fields = self.rows[0] if self.rows else ["id"]
        with write_whole(Path(folder, "per_utterance.csv")) as path:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fields)
                writer.writeheader()
                writer.writerows(sorted(self.rows, key=lambda row: row["id"]))
        with write_whole(Path(folder, "summary.json")) as path:
            text = json.dumps({**about, **self.summary()}, indent=2)
            path.write_text(f"{text}\n", encoding="utf-8")

    def __str__(self) -> str:
        """One line: the means with their intervals."""
        summary = self.summary()
        parts = [
            f"of {number} talkers: {_describe(part)}"
            for number, part in summary.get("by_num_spks", {}).items()
        ]
        return "; ".join([_describe(summary), *parts])


def _summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means with 95 % intervals, see :meth:`SeparationReport.summary`."""
    result: dict[str, Any] = {
        "utterances": len(rows),
        **{name: sum(row.get(name, 0) for row in rows) for name in COUNTED},
    }
    for name in rows[0] if rows else ():
        if name in ABOUT:
            continue
        values = np.array([row[name] for row in rows])
        values = values[~np.isnan(values)]
        mean = half = None
        if len(values):
            mean = float(values.mean())
            spread = values.std(ddof=1) if len(values) > 1 else 0.0
            half = float(Z_95 * spread / math.sqrt(len(values)))
        result[name] = {"mean": mean, "ci95": half, "scored": len(values)}
    return result


def _describe(summary: dict[str, Any]) -> str:
    """The means of a summary in words."""
    parts = [
        f"{name.upper().replace('_', '-').replace('DRI', 'DRi')} "
        f"{value['mean']:.2f} ± {value['ci95']:.2f} dB"
        for name, value in summary.items()
        if isinstance(value, dict) and value.get("mean") is not None
    ]
    notes = [f"{summary['utterances']} mixtures"]
    unscored = summary["utterances"] - summary.get("si_sdri", {}).get(
        "scored", summary["utterances"]
    )
    counts = {words: summary[name] for name, words in COUNTED.items()}
    counts["without improvement"] = unscored
    notes += [f"{words}: {count}" for words, count in counts.items() if count]
    return f"{', '.join(parts)} ({'; '.join(notes)})"
