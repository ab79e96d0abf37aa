"""What the talkers of MiniMix say, and which recordings are mixed."""

import random
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from minimix_voices import Speaker

SENTENCES_FILE = Path(__file__).resolve().parent / "sentences.txt"
SNR_DB = 2.5  # the largest gain of one talker, and loss of another
# Talkers of a mixture have pitches with at least this ratio, if possible.
PITCH_RATIO = {2: 1.3, 3: 1.15}
DRAWS = 100
# By talker, what is said by the path of the recording, relative to the corpus
Readings = Mapping[Speaker, Mapping[str, str]]


def read_sentences() -> dict[str, list[str]]:
    """Reads the sentences of each split."""
    sentences: dict[str, list[str]] = {}
    text = SENTENCES_FILE.read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("["):
            split = sentences.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            split.append(line)
    return sentences


def draw_texts(
    speakers: Sequence[Speaker], utterances: int, seed: int
) -> Readings:
    """Draws what each talker says.

    Arguments
    ---------
    speakers : sequence of Speaker
        The talkers.
    utterances : int
        Sentences for each, or all of the split's if it has fewer.
    seed : int
        Seed of the draw.

    Returns
    -------
    dict
        By Speaker, a dict of the sentences by the path of the recording,
        relative to the corpus.
    """
    readings: dict[Speaker, dict[str, str]] = {}
    split_sentences = read_sentences()
    for speaker in speakers:
        sentences = split_sentences[speaker.split]
        rng = random.Random(f"MiniMix texts {seed} {speaker.name}")
        numbers = rng.sample(
            range(len(sentences)), min(utterances, len(sentences))
        )
        stem = f"{speaker.split}/{speaker.name}/{speaker.name}"
        readings[speaker] = {
            f"{stem}_{n:02d}.wav": sentences[n] for n in numbers
        }
    return readings


def draw_mixtures(
    readings: Readings, num_spks: int, count: int, rng: random.Random
) -> list[str]:
    """Draws the lines of a mixture list.

    As far as possible, the talkers of a mixture have different voices, say
    different sentences, and have clearly different pitches. Each talker's
    recordings take turns.

    Arguments
    ---------
    readings : dict
        By Speaker, a dict of what is said by the path of the recording.
    num_spks : int
        Talkers in a mixture, 2 or 3.
    count : int
        The number of mixtures.
    rng : random.Random
        Source of all draws.

    Returns
    -------
    list of str
        Lines "path1 snr1 path2 -snr1 [path3 0.0000]", SNRs in dB.
    """
    enough = PITCH_RATIO[num_spks]
    candidates = sorted(readings)
    turns = {
        speaker: deque(rng.sample(sorted(texts), len(texts)))
        for speaker, texts in readings.items()
    }

    def difference(group: list[Speaker]) -> tuple[int, int, float]:
        """Voices, texts, ratio of pitches, in which `enough` is enough."""
        voices = {speaker.variant for speaker in group}
        texts = {readings[speaker][turns[speaker][0]] for speaker in group}
        pitches = sorted(speaker.pitch for speaker in group)
        ratio = min(high / low for low, high in zip(pitches, pitches[1:]))
        return len(voices), len(texts), min(ratio, enough)

    lines: dict[str, None] = {}  # for its order: no mixture comes twice
    while len(lines) < count:
        draws = (rng.sample(candidates, num_spks) for _ in range(DRAWS))
        group = max(draws, key=difference)
        snr = rng.uniform(0, SNR_DB)
        fields = []
        for speaker, gain in zip(group, (snr, -snr, 0.0)):
            fields.append(f"{turns[speaker][0]} {gain:.4f}")
            turns[speaker].rotate(-1)
        lines[" ".join(fields)] = None
    return list(lines)
