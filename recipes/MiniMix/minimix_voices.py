"""The voices of MiniMix.

A virtual talker is one of espeak-ng's accents and voice variants with a
pitch, a liveliness, a speaking rate and a length of the vocal tract of its
own.
"""

import math
import random
from typing import NamedTuple

ACCENTS = (
    "en-us",
    "en-us-nyc",
    "en",  # southern England
    "en-gb-x-rp",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",  # Caribbean
)
# The variants of each split, which no other split has. Two numbers each: the
# line "pitch" of the voice's file, Hz at the low and high end of its melody.
_VOICES = {
    "tr": {
        "low": """
            Alex 105 115, Andy 85 110, Gene 80 110, Lee 85 110, Reed 85 135,
            Storm 60 100, adam 82 118, boris 82 118, ed 90 145, ian 69 96,
            john 82 118, klatt3 82 118, m1 75 109, m3 80 122, m5 82 118,
            m7 75 125, max 82 118, michel 82 122, pablo 82 130, paul 70 100,
            travis 75 120
        """,
        "high": """
            Alicia 180 275, belinda 200 247, f1 140 200, f2 142 220,
            f5 160 228, linda 200 247, shelby 100 210
        """,
    },
    "cv": {
        "low": """
            Mike 67 107, edward2 82 118, iven3 74 118, m2 88 115, m6 82 117,
            sandro 78 115
        """,
        "high": "Andrea 200 265, f3 140 240, grandma 120 230",
    },
    "tt": {
        "low": """
            antonio 82 128, klatt4 82 118, m4 70 110, norbert 82 118,
            pedro 82 118, victor 80 110
        """,
        "high": "Annie 120 280, aunty 204 176, f4 142 200",
    },
}
VARIANTS = {
    split: {
        register: {
            name: (int(low), int(high))
            for name, low, high in map(str.split, voices.split(","))
        }
        for register, voices in registers.items()
    }
    for split, registers in _VOICES.items()
}
PITCH_HZ = {"low": (80.0, 135.0), "high": (165.0, 260.0)}
PITCH_RANGE = (30, 70)  # espeak-ng's own is 50
WORDS_PER_MINUTE = (130, 170)
TRACT = {"low": (0.92, 1.06), "high": (0.98, 1.12)}

# Both fitted to measured pitches: how far up its melody a voice mostly is,
# and the steps of espeak-ng's pitch parameter (0 to 99) in an octave.
MELODY_CENTRE = 0.7
PITCH_STEPS = 66


class Speaker(NamedTuple):
    """A virtual talker.

    Arguments
    ---------
    name : str
        For example "tr07".
    split : str
        "tr", "cv" or "tt".
    accent : str
        Name of an English voice of espeak-ng.
    variant : str
        Name of a voice variant of espeak-ng.
    pitch : float
        About the median of the fundamental frequency, in Hz.
    rate : int
        Speaking rate in words per minute.
    pitch_range : int
        Liveliness of the melody from 0 to 99; 50 is the voice's own.
    tract : float
        Factor of the formant frequencies.
    pitch_parameter : int
        Pitch as espeak-ng counts it, from 0 to 99.
    """

    name: str
    split: str
    accent: str
    variant: str
    pitch: float
    rate: int
    pitch_range: int
    tract: float
    pitch_parameter: int


def draw_speakers(split: str, count: int, seed: int) -> list[Speaker]:
    """Draws the talkers of a split, every other one high pitched.

    The pitches of either half are spread evenly over its range.

    Arguments
    ---------
    split : str
        "tr", "cv" or "tt".
    count : int
        The number of talkers.
    seed : int
        Seed of the draw; each split has its own.

    Returns
    -------
    list of Speaker
        The talkers.
    """
    rng = random.Random(f"MiniMix speakers {seed} {split}")
    accents = rng.sample(ACCENTS, len(ACCENTS))
    speakers: dict[int, Speaker] = {}
    for offset, register in enumerate(("low", "high")):
        places = range(offset, count, 2)
        variants = VARIANTS[split][register]
        names = rng.sample(sorted(variants), len(variants))
        low, high = PITCH_HZ[register]
        for i, place in enumerate(places):
            variant = names[i % len(names)]
            step = (i + rng.random()) / len(places)
            tract = rng.uniform(*TRACT[register])
            pitch, parameter = _nearest_pitch(
                low * (high / low) ** step, tract, *variants[variant]
            )
            speakers[place] = Speaker(
                name=f"{split}{place:02d}",
                split=split,
                # each register goes through all of them, at a distance
                accent=accents[(i + 3 * offset) % len(accents)],
                variant=variant,
                pitch=round(pitch, 1),
                rate=rng.randint(*WORDS_PER_MINUTE),
                pitch_range=rng.randint(*PITCH_RANGE),
                tract=round(tract, 3),
                pitch_parameter=parameter,
            )
    return [speakers[place] for place in range(count)]


def _nearest_pitch(
    wanted: float, tract: float, voice_low: int, voice_high: int
) -> tuple[float, int]:
    """The pitch that a voice can have, in Hz, and its pitch parameter."""
    melody = MELODY_CENTRE * (voice_high - voice_low)
    # The parameter scales the low end only.
    ratio = max(wanted / tract - melody, 1.0) / voice_low
    parameter = round(50 + PITCH_STEPS * math.log2(ratio))
    parameter = min(max(parameter, 0), 99)
    ratio = 2 ** ((parameter - 50) / PITCH_STEPS)
    return tract * (voice_low * ratio + melody), parameter
