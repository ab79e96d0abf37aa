"""Attractor-based speech separation for SpeechBrain.

A network gives every time-frequency bin of a mixture an embedding, attractors
are found among the embeddings, and the similarity of a bin to an attractor is
the mask of one talker. The folders mirror SpeechBrain's: ``processing``,
``nnet``, ``lobes``, ``inference``, ``utils`` and ``dataio``.
"""

from pathlib import Path

__version__ = "0.1.0"
# A recording of two talkers, to try things on.
EXAMPLE = Path(__file__).parent / "examples" / "two_talkers.flac"
