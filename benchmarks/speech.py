"""Synthetic speech: the energy of its bins is as sparse as that of real one.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import sys
import tempfile
from functools import cache
from pathlib import Path

import torch
from speechbrain.dataio.dataio import read_audio

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "recipes" / "MiniMix"))
from minimix_lists import draw_texts  # noqa: E402
from minimix_synthesis import record_speakers  # noqa: E402
from minimix_voices import draw_speakers  # noqa: E402

SAMPLE_RATE = 8000
TALKERS = 2
SENTENCES = 20  # of each talker, about a minute


@cache
def _read_aloud():
    """What each of the talkers says [talkers], of different lengths."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder)
        speakers = draw_speakers("tr", TALKERS, seed=0)
        readings = draw_texts(speakers, SENTENCES, seed=0)
        record_speakers(corpus, readings, progress=False)
        return [
            torch.cat([read_audio(str(corpus / path)) for path in texts])
            for texts in readings.values()
        ]


def make_sources(batch, samples):
    """Talkers who speak without a pause; they start again at the end.

    Arguments
    ---------
    batch : int
        Number of mixtures.
    samples : int
        Their length, at 8 kHz.

    Returns
    -------
    torch.Tensor
        Sources [batch, samples, TALKERS].
    """
    total = batch * samples
    voices = [
        voice.repeat(-(-total // len(voice)))[:total] for voice in _read_aloud()
    ]
    return torch.stack(voices, dim=1).unflatten(0, (batch, samples))
