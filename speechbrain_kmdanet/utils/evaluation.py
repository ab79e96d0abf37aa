"""Evaluation of separated mixtures: per utterance and as means.

SI-SDR is computed in float64 over the true length of each utterance, with the
permutation of highest SI-SDR; SDR is that of mir_eval (BSS Eval v3) with the
same permutation. "Improvement" is the gain over the unprocessed mixture.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import csv
import json
import math
import os
import warnings

import numpy as np

from speechbrain_kmdanet.nnet.permutation import (
    best_permutation,
    permute_sources,
)
from speechbrain_kmdanet.utils.metrics import pairwise_si_sdr, si_sdr

# Quantile of the normal distribution for intervals of 95 %.
Z_95 = 1.959964


def evaluate_utterance(mixture, sources, estimates, compute_sdr=False):
    """Scores the separation of one mixture.

    Sources that are silent have no SDR; they are left out of the means.

    Arguments
    ---------
    mixture : torch.Tensor
        Mixture [L].
    sources : torch.Tensor
        True sources [L, K].
    estimates : torch.Tensor
        Estimated sources in any order [L, K].
    compute_sdr : bool
        Whether to compute the SDR of mir_eval too, which is slow.

    Returns
    -------
    scores : dict
        Means over the sources that are not silent of si_sdr and si_sdri, and
        of sdr and sdri if asked for, in dB (NaN if all sources are silent),
        and the number silent_sources.
    ordered : torch.Tensor
        Estimates in the order of the sources [L, K].

    Example
    -------
    >>> import torch
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
    active = sources.square().sum(1) > 0
    pairwise = pairwise_si_sdr(estimates, sources)
    permutation = best_permutation(-pairwise * active.unsqueeze(2))
    ordered = permute_sources(estimates, permutation, dim=2)
    unprocessed = mixture.unsqueeze(2).expand_as(sources)

    keep = active[0]
    count = int(keep.sum())
    scores = {"silent_sources": sources.shape[2] - count}
    measures = {"si_sdr": lambda x: si_sdr(x, sources)[0, keep]}
    if compute_sdr:
        reference = sources[0, :, keep].T.numpy()
        measures["sdr"] = lambda x: _sdr(reference, x[0, :, keep].T.numpy())
    for name, measure in measures.items():
        value = improvement = math.nan
        if count:
            value = float(measure(ordered).mean())
            improvement = value - float(measure(unprocessed).mean())
        scores[name], scores[f"{name}i"] = value, improvement
    return scores, ordered[0].float()


def _sdr(sources, estimates):
    """SDR of mir_eval [K] of sources and estimates [K, L]."""
    from mir_eval.separation import bss_eval_sources

    if not np.abs(estimates).sum(1).all():
        # mir_eval refuses silent estimates; they have no SDR.
        return np.full(len(sources), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return bss_eval_sources(sources, estimates, compute_permutation=False)[
            0
        ]


class SeparationReport:
    """Collects the scores of a test set.

    Example
    -------
    >>> report = SeparationReport()
    >>> report.add("a", {"si_sdri": 9.0, "silent_sources": 0})
    >>> report.add("b", {"si_sdri": 11.0, "silent_sources": 0})
    >>> report.summary()["si_sdri"]["mean"]
    10.0
    """

    def __init__(self):
        self.rows = []

    def add(self, utterance, scores):
        """Adds the scores of one utterance.

        Arguments
        ---------
        utterance : str
            Its name.
        scores : dict
            Its scores, see :func:`evaluate_utterance`.
        """
        self.rows.append({"id": utterance, **scores})

    def summary(self):
        """Means with 95 % intervals over the utterances.

        Returns
        -------
        dict
            For each score a dict of mean and ci95 (half the width of the
            interval), in dB, both None without utterances; and the numbers of
            utterances, of scored ones and of silent sources.
        """
        names = [
            key
            for key in (self.rows[0] if self.rows else {})
            if key not in ("id", "silent_sources")
        ]
        result = {
            "utterances": len(self.rows),
            "silent_sources": sum(row["silent_sources"] for row in self.rows),
        }
        for name in names:
            values = np.array([row[name] for row in self.rows])
            values = values[~np.isnan(values)]
            mean = half = None
            if len(values):
                mean = float(values.mean())
                spread = values.std(ddof=1) if len(values) > 1 else 0.0
                half = float(Z_95 * spread / math.sqrt(len(values)))
            result[name] = {"mean": mean, "ci95": half, "scored": len(values)}
        return result

    def write(self, folder, **about):
        """Writes per_utterance.csv and summary.json.

        Arguments
        ---------
        folder : str
            Where to write; made if it is not there.
        **about : dict
            What else the summary should say.
        """
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "per_utterance.csv")
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.rows[0] if self.rows else ["id"])
            writer.writeheader()
            writer.writerows(sorted(self.rows, key=lambda row: row["id"]))
        path = os.path.join(folder, "summary.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**about, **self.summary()}, file, indent=2)
            file.write("\n")

    def __str__(self):
        """One line: the means with their intervals."""
        parts = [
            f"{name.upper().replace('_', '-').replace('DRI', 'DRi')} "
            f"{value['mean']:.2f} ± {value['ci95']:.2f} dB"
            for name, value in self.summary().items()
            if isinstance(value, dict) and value["mean"] is not None
        ]
        return f"{', '.join(parts)} ({len(self.rows)} mixtures)"
