"""Speech-like sound and tiny data sets for the tests, made from nothing."""

import numpy as np
import soundfile
from scipy.signal import butter, lfilter, sosfilt

from speechbrain_kmdanet.dataio.wsj0mix import build_mixtures

SAMPLE_RATE = 8000
SPLITS = ("tr", "cv", "tt")
# Voices that no network can confuse: each has a band in Hz of its own.
BANDS = {"low": (80, 900), "mid": (1200, 2000), "high": (2400, 3600)}
PITCHES = {"low": 95.0, "mid": 140.0, "high": 210.0}


def synthesise(rng, seconds, pitch, band=None):
    """A voice [L]: syllables of a harmonic tone through two formants."""
    syllables = []
    while sum(map(len, syllables)) < seconds * SAMPLE_RATE:
        time = np.arange(rng.integers(1000, 2400)) / SAMPLE_RATE
        glide = pitch * rng.uniform(0.9, 1.1) * (1 + rng.uniform(0, 0.2) * time)
        phase = 2 * np.pi * np.cumsum(glide) / SAMPLE_RATE
        harmonics = np.arange(1, int(3600 / glide.max()) + 1)
        syllable = np.cos(np.outer(harmonics, phase)).sum(axis=0)
        for formant in rng.uniform(300, 900), rng.uniform(1000, 2800):
            pole = 0.95 * np.exp(2j * np.pi * formant / SAMPLE_RATE)
            denominator = [1.0, -2 * pole.real, abs(pole) ** 2]
            syllable = syllable + lfilter([0.5], denominator, syllable)
        syllables.append(syllable * np.hanning(len(time)))
        syllables.append(np.zeros(rng.integers(100, 500)))
    voice = np.concatenate(syllables)[: round(seconds * SAMPLE_RATE)]
    if band is not None:
        filters = butter(8, band, "bandpass", fs=SAMPLE_RATE, output="sos")
        voice = sosfilt(filters, voice)
    return voice * 0.5 / np.abs(voice).max()


def write_corpus(folder, speakers=2, utterances=2, seconds=1.4):
    """Writes folder/SPEAKER/UTTERANCE.wav; returns the paths by band."""
    paths = {band: [] for band in BANDS}
    for seed, name in enumerate(
        f"{band}{i}" for band in BANDS for i in range(speakers)
    ):
        band = name[:-1]
        rng = np.random.default_rng(seed)
        (folder / name).mkdir(parents=True)
        for utterance in range(utterances):
            path = folder / name / f"{name}{utterance}.wav"
            voice = synthesise(
                rng,
                seconds + 0.1 * rng.random(),
                PITCHES[band] * rng.uniform(0.9, 1.1),
                BANDS[band],
            )
            soundfile.write(path, voice, SAMPLE_RATE)
            paths[band].append(path.relative_to(folder).as_posix())
    return paths


def build_set(corpus, paths, folder, num_spks, counts, seed=0):
    """Builds mixtures of voices in distinct bands; returns their folder."""
    rng = np.random.default_rng(seed)
    lists = folder / "lists"
    lists.mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        lines = {}
        while len(lines) < count:
            bands = rng.choice(list(BANDS), num_spks, replace=False)
            snr = f"{rng.uniform(0, 2.5):.4f}"
            fields = [
                f"{rng.choice(paths[band])} {gain}"
                for band, gain in zip(bands, (snr, f"-{snr}", "0"))
            ]
            lines[" ".join(fields)] = None
        text = "\n".join(lines) + "\n"
        (lists / f"mix_{num_spks}_spk_{split}.txt").write_text(text)
    options = {"workers": 1, "progress": False}
    build_mixtures(corpus, lists, folder, num_spks, tuple(counts), **options)
    return folder / f"{num_spks}speakers"
