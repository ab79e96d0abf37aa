"""Figures of tests: means over mixtures and seeds, with intervals.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import csv
import math
import re
import statistics

from speechbrain_kmdanet.utils.evaluation import SeparationReport


def read_scores(folders, num_spks):
    """Reads the SI-SDR improvements of tests that differ in the seed alone.

    Arguments
    ---------
    folders : sequence of pathlib.Path
        Folders with per_utterance.csv.
    num_spks : int
        Number of speakers of the mixtures that are wanted.

    Returns
    -------
    dict
        Mean over the folders by mixture, in dB; without silent mixtures.
    """
    scores = {}
    for folder in folders:
        path = folder / "per_utterance.csv"
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if int(row["num_spks"]) == num_spks:
                    score = float(row["si_sdri"])
                    scores.setdefault(row["id"], []).append(score)
    means = {name: statistics.fmean(values) for name, values in scores.items()}
    return {name: mean for name, mean in means.items() if not math.isnan(mean)}


def summarise(scores):
    """Mean over mixtures with its 95 % interval.

    Arguments
    ---------
    scores : dict
        Scores by mixture, in dB.

    Returns
    -------
    dict
        mean, ci95 (half the width of the interval) and scored, see
        SeparationReport; mean and ci95 are None without scores.
    """
    report = SeparationReport()
    for name, score in scores.items():
        row = {"num_spks": None, "silent_sources": 0, "si_sdri": score}
        report.add(name, row)
    empty = {"mean": None, "ci95": None, "scored": 0}
    return report.summary().get("si_sdri", empty)


def subtract(scores, others):
    """Differences mixture by mixture, whose interval is narrower.

    Arguments
    ---------
    scores : dict
        Scores by mixture, in dB.
    others : dict
        Those to subtract.

    Returns
    -------
    dict
        Differences by mixture, of those in both.
    """
    return {
        name: score - others[name]
        for name, score in scores.items()
        if name in others
    }


def read_epoch_minutes(train_log):
    """Reads the time of training in an epoch, without validation.

    Arguments
    ---------
    train_log : pathlib.Path
        train_log.txt of a training.

    Returns
    -------
    float
        Median over the epochs in minutes, as an interrupted epoch counts in
        part; None if the log does not say.
    """
    text = train_log.read_text(encoding="utf-8")
    seconds = re.findall(r"train seconds: ([\d.]+(?:e[-+]?\d+)?)", text)
    return statistics.median(map(float, seconds)) / 60 if seconds else None
