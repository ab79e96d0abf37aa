"""Rows about evaluation: SI-SDR against mir_eval's SDR.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import torch
from rows import Row
from timing import compare

from speechbrain_kmdanet.utils.evaluation import evaluate_utterance

SAMPLES = 32000  # 4 s


def against_sdr(repeats):
    """Evaluation with SDR and SI-SDR against SI-SDR alone.

    Arguments
    ---------
    repeats : int
        Number of rounds.

    Returns
    -------
    Ratio
        Of the time with SDR to that without.
    """
    generator = torch.Generator().manual_seed(0)
    sources = torch.randn(SAMPLES, 2, generator=generator)
    estimates = sources + 0.1 * sources.flip(1)

    def score(compute_sdr):
        return lambda: evaluate_utterance(
            sources.sum(1), sources, estimates, compute_sdr
        )

    return compare({"with SDR": score(True), "SI-SDR": score(False)}, repeats)


ROWS = [Row("evaluation with SDR, over SI-SDR alone", 20.0, False, against_sdr)]
