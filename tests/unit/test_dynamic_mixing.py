"""Tests of the training data: new mixtures, and segments of listed ones."""

import csv

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from speechbrain_kmdanet.dataio.active_level import active_speech_level
from speechbrain_kmdanet.dataio.dynamic_mixing import (
    MAX_GAIN_DB,
    DynamicMixing,
    index_corpus,
)
from speechbrain_kmdanet.dataio.mixture_dataset import MixtureDataset

RATE = 8000
# Frequency of each speaker's tone in Hz, and its amplitude
TONES = {"a": (500, 0.9), "b": (1000, 0.3), "c": (1500, 0.1), "d": (2000, 0.02)}


def tone(frequency, amplitude, seconds, rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    return amplitude * np.sin(2 * np.pi * frequency * time)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Four speakers, who hum, and the list of their recordings."""
    folder = tmp_path_factory.mktemp("corpus")
    recordings = []
    for speaker, (frequency, amplitude) in TONES.items():
        (folder / speaker).mkdir()
        for number, seconds in enumerate((0.7, 1.5)):
            path = f"{speaker}/{number}.wav"
            signal = tone(frequency, amplitude, seconds)
            soundfile.write(folder / path, signal, RATE, "FLOAT")
            recordings.append(
                dict(
                    path=path, speaker=speaker, samples=len(signal),
                    sample_rate=RATE, level=amplitude**2 / 2,
                )
            )  # fmt: skip
    return folder, recordings


def frequencies(signals):
    """Frequency in Hz of the tone of each signal [L, K]."""
    spectrum = np.abs(np.fft.rfft(signals.numpy(), axis=0))
    return spectrum.argmax(axis=0) * RATE / len(signals)


def level_db(signal):
    return 10 * np.log10(np.square(signal.numpy(), dtype=np.float64).mean())


def test_same_mixture_whatever_the_workers(corpus):
    def mixtures(num_workers, order=None):
        dataset = DynamicMixing(*corpus, epoch_size=6, seed=3)
        dataset.set_epoch(2)
        loader = DataLoader(
            dataset, None, num_workers=num_workers, sampler=order
        )
        return {item["id"]: item for item in loader}

    alone, parallel = mixtures(0), mixtures(2, order=[5, 3, 1, 0, 2, 4])
    assert set(alone) == {f"2-{i}" for i in range(6)} == set(parallel)
    for name, item in alone.items():
        assert torch.equal(item["mixture"], parallel[name]["mixture"])
        assert torch.equal(item["sources"], parallel[name]["sources"])


@pytest.mark.parametrize("change", [{"epoch": 2}, {"seed": 4}, {"index": 1}])
def test_mixtures_change(corpus, change):
    def mixture(seed=3, epoch=1, index=0):
        dataset = DynamicMixing(*corpus, seed=seed)
        dataset.set_epoch(epoch)
        return dataset[index]["mixture"]

    assert not torch.equal(mixture(), mixture(**change))
    assert torch.equal(mixture(), mixture())


@pytest.mark.parametrize("num_spks", [2, 3, 4])
def test_levels_and_speakers(corpus, num_spks):
    dataset = DynamicMixing(*corpus, num_spks=num_spks, segment_seconds=2.0)
    for index in range(5):
        item = dataset[index]
        mixture, sources = item["mixture"], item["sources"]
        assert mixture.shape == (16000,) and sources.shape == (16000, num_spks)
        assert mixture.dtype == sources.dtype == torch.float32
        assert torch.allclose(sources.sum(1), mixture, atol=1e-6)
        peak = max(mixture.abs().max(), sources.abs().max())
        assert peak == pytest.approx(0.9, abs=1e-6)
        # All speakers are distinct.
        assert len(set(frequencies(sources).round(-2))) == num_spks
        # Gains of WSJ0-mix, whatever the level of the recordings: g, −g, 0...
        levels = [level_db(source) for source in sources.T]
        gain = (levels[0] - levels[1]) / 2
        assert -0.1 < gain < MAX_GAIN_DB + 0.1
        for level in levels[2:]:
            assert levels[0] - level == pytest.approx(gain, abs=0.1)


def test_recordings_are_resampled(tmp_path):
    for speaker, frequency in zip("ab", (500, 1000)):
        (tmp_path / speaker).mkdir()
        signal = tone(frequency, 0.5, 3.0, 16000)
        soundfile.write(tmp_path / speaker / "0.flac", signal, 16000)
    recordings = index_corpus(tmp_path, tmp_path / "index.csv", workers=1)
    dataset = DynamicMixing(tmp_path, recordings, segment_seconds=1.0)
    found = frequencies(dataset[0]["sources"])
    assert sorted(found) == pytest.approx([500, 1000], abs=2)


def test_speed_is_that_of_the_voice(corpus):
    dataset = DynamicMixing(*corpus, segment_seconds=1.0, speeds=[1.1])
    wanted = 1.1 * np.array([frequency for frequency, _ in TONES.values()])
    for found in frequencies(dataset[0]["sources"]):
        assert np.abs(wanted - found).min() < 5.0


def test_too_few_speakers(corpus):
    with pytest.raises(ValueError, match="num_spks=5 need as many speakers"):
        DynamicMixing(*corpus, num_spks=5)


def test_index_is_made_once(corpus, tmp_path):
    folder, recordings = corpus
    index = tmp_path / "new" / "index.csv"
    found = index_corpus(folder, index, workers=1)
    assert [row["path"] for row in found] == [r["path"] for r in recordings]
    assert [row["speaker"] for row in found] == [*"aabbccdd"]
    for row in found:
        signal, rate = soundfile.read(folder / row["path"])
        assert (row["samples"], row["sample_rate"]) == (len(signal), rate)
        assert row["level"] == pytest.approx(active_speech_level(signal, rate))
    # Read again rather than measured again
    with index.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["level"] = "0.125"
    with index.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    again = index_corpus(folder, index)
    assert again == [{**found[0], "level": 0.125}, *found[1:]]


def test_index_names_what_is_unusable(tmp_path):
    with pytest.raises(ValueError, match="there are no recordings in"):
        index_corpus(tmp_path, tmp_path / "index.csv")
    (tmp_path / "a").mkdir()
    soundfile.write(
        tmp_path / "a" / "0.wav", np.full(8000, np.nan), RATE, "FLOAT"
    )
    with pytest.raises(ValueError, match=r"a/0\.wav .*has NaN"):
        index_corpus(tmp_path, tmp_path / "index.csv", workers=1)
    assert not (tmp_path / "index.csv").exists()


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """CSV file of mixtures whose samples tell where they come from."""
    folder = tmp_path_factory.mktemp("listed")
    with (folder / "tr.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ID", "duration", "mix_wav", "s1_wav", "s2_wav"])
        for name, length in (("long", 8000), ("longer", 9000), ("short", 600)):
            ramp = np.arange(length) / 16384
            paths = []
            for part, share in (("mix", 1.0), ("s1", 0.25), ("s2", 0.75)):
                paths.append(folder / f"{name}_{part}.wav")
                soundfile.write(paths[-1], share * ramp, RATE, "FLOAT")
            writer.writerow([name, length / RATE, *paths])
    return folder / "tr.csv"


def read_all(dataset, order=(0, 1, 2)):
    items = {}
    for index in order:
        item = dataset[index]
        items[item["id"]] = item
    return items


def test_listed_mixtures_are_whole(listed):
    items = read_all(MixtureDataset.from_csv(str(listed)))
    lengths = {name: len(item["mixture"]) for name, item in items.items()}
    assert lengths == {"long": 8000, "longer": 9000, "short": 600}
    for item in items.values():
        assert item["sources"].shape == (len(item["mixture"]), 2)
        assert torch.equal(item["sources"].sum(1), item["mixture"])


def test_segments_depend_on_seed_epoch_and_id_alone(listed):
    def segments(seed=1, epoch=1, order=(0, 1, 2)):
        dataset = MixtureDataset.from_csv(
            str(listed), segment_seconds=0.25, seed=seed
        )
        dataset.set_epoch(epoch)
        return read_all(dataset, order)

    items = segments()
    assert {n: len(item["mixture"]) for n, item in items.items()} == {
        "long": 2000, "longer": 2000, "short": 600
    }  # fmt: skip
    for name, item in segments(order=(2, 0, 1)).items():
        assert torch.equal(item["mixture"], items[name]["mixture"])
        assert torch.equal(item["sources"], items[name]["sources"])
    for item in items.values():
        # Mixture and sources are cut at the same place.
        assert torch.equal(item["sources"].sum(1), item["mixture"])
    for others in (segments(epoch=2), segments(seed=2)):
        for name in ("long", "longer"):
            start = items[name]["mixture"][0]
            assert others[name]["mixture"][0] != start
    starts = [16384 * items[name]["mixture"][0] for name in ("long", "longer")]
    assert starts[0] != starts[1]
