"""Tests of dynamic mixing: new mixtures in every epoch."""

import csv
import os
import re

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from speechbrain_kmdanet.dataio.active_level import active_speech_level
from speechbrain_kmdanet.dataio.corpus import (
    index_corpus,
    read_corpora,
    read_index,
    read_part,
)
from speechbrain_kmdanet.dataio.mixture_dataset import DynamicMixing
from speechbrain_kmdanet.errors import UserError

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
                {
                    "path": path,
                    "speaker": speaker,
                    "samples": len(signal),
                    "sample_rate": RATE,
                    "level": amplitude**2 / 2,
                }
            )
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
        dataset.epoch = 2
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
        dataset.epoch = epoch
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
        assert -0.1 < gain < 2.5 + 0.1
        for level in levels[2:]:
            assert levels[0] - level == pytest.approx(gain, abs=0.1)


def test_recordings_are_resampled(tmp_path):
    for speaker, frequency in zip("ab", (500, 1000)):
        (tmp_path / speaker).mkdir()
        signal = tone(frequency, 0.5, 3.0, 16000)
        soundfile.write(tmp_path / speaker / "0.flac", signal, 16000)
    index = tmp_path / "index.csv"
    index_corpus(tmp_path, index, workers=1)
    dataset = DynamicMixing(tmp_path, read_index(index), segment_seconds=1.0)
    found = frequencies(dataset[0]["sources"])
    assert sorted(found) == pytest.approx([500, 1000], abs=2)


def test_another_rate_than_that_measured(corpus):
    folder, recordings = corpus
    recordings = [{**row, "sample_rate": 16000} for row in recordings]
    with pytest.raises(UserError, match="8000 Hz, expected 16000 Hz as when"):
        DynamicMixing(folder, recordings)[0]


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda path: path.write_text("no audio"), "Format not recognised"),
        (lambda path: path.unlink(), "missing"),
        (lambda path: soundfile.write(path, [0.5] * 9, RATE), ""),
        (
            lambda path: soundfile.write(path, [[0.0, 1.0]] * 9000, RATE),
            "expected",
        ),
    ],
)
def test_damage_is_told_in_one_line(tmp_path, damage, reason):
    for speaker in "ab":
        (tmp_path / speaker).mkdir()
        path = tmp_path / speaker / "0.wav"
        soundfile.write(path, tone(500, 0.5, 1.0), RATE)
    index = tmp_path / "index.csv"
    index_corpus(tmp_path, index, workers=1)
    for path in tmp_path.glob("*/*.wav"):
        damage(path)
    dataset = DynamicMixing(tmp_path, read_index(index))
    with pytest.raises(UserError, match=f"Error .*0.wav': {reason}") as error:
        dataset[0]
    # PyTorch makes an error of a loader's worker again from its text alone.
    assert type(error.value) is UserError


def test_speed_is_that_of_the_voice(corpus):
    dataset = DynamicMixing(*corpus, segment_seconds=1.0, speeds=[1.1])
    wanted = 1.1 * np.array([frequency for frequency, _ in TONES.values()])
    for found in frequencies(dataset[0]["sources"]):
        assert np.abs(wanted - found).min() < 5.0


@pytest.mark.parametrize("num_spks", [5, (2, 5)])
def test_too_few_speakers(corpus, num_spks):
    with pytest.raises(UserError, match="num_spks=5 need as many talkers"):
        DynamicMixing(*corpus, num_spks=num_spks)


def test_several_numbers_take_turns(corpus):
    dataset = DynamicMixing(*corpus, num_spks=(2, 3), epoch_size=5)
    assert dataset.num_spks == [2, 3, 2, 3, 2] and len(dataset) == 5
    for index, num_spks in enumerate(dataset.num_spks):
        sources = dataset[index]["sources"]
        assert sources.shape[1] == num_spks
        # The mixture is that of its index among mixtures of this number.
        alone = DynamicMixing(*corpus, num_spks=num_spks, epoch_size=5)
        assert torch.equal(alone[index]["sources"], sources)


def test_active_levels_in_the_mixture(tmp_path):
    """The gains are those of the active levels, in which pauses do not count."""
    time = np.arange(4 * RATE) / RATE
    for speaker, share in zip("abc", (0.9, 0.4, 0.1)):
        (tmp_path / speaker).mkdir()
        # One burst in two seconds, the louder the longer
        signal = (time % 2.0 < 2.0 * share) * tone(500, share, 4.0)
        for number in range(2):
            path = tmp_path / speaker / f"{number}.wav"
            soundfile.write(path, signal, RATE, "FLOAT")
    index = tmp_path / "index.csv"
    index_corpus(tmp_path, index, workers=1)
    dataset = DynamicMixing(
        tmp_path, read_index(index), num_spks=3, segment_seconds=16.0
    )

    def errors(measure):
        """Largest deviation in dB from the gains g, −g, 0."""
        for item in map(dataset.__getitem__, range(4)):
            first, second, third = (
                10 * np.log10(measure(source.double().numpy()))
                for source in item["sources"].T
            )
            yield abs((first + second) / 2 - third)

    assert max(errors(lambda x: active_speech_level(x, RATE))) < 0.3
    assert max(errors(lambda x: np.mean(np.square(x)))) > 3.0


def test_index_is_made_once(corpus, tmp_path):
    folder, recordings = corpus
    index = tmp_path / "new" / "index.csv"
    index_corpus(folder, index, workers=1)
    found = read_index(index)
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
    index_corpus(folder, index)
    assert read_index(index) == [{**found[0], "level": 0.125}, *found[1:]]


def copy_corpus(folder, copy, gain):
    """Recordings of the same names and lengths, of another level."""
    for path in folder.glob("*/*.wav"):
        signal, rate = soundfile.read(path)
        target = copy / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, gain * signal, rate, "FLOAT")
        time = path.stat().st_mtime_ns + 10**9
        os.utime(target, ns=(time, time))


def test_index_is_of_what_is_in_the_files(corpus, tmp_path):
    folder, _ = corpus
    index = tmp_path / "index.csv"
    index_corpus(folder, index, workers=1)
    first = [row["level"] for row in read_index(index)]
    # Another corpus, then one of its recordings changed
    other = tmp_path / "other"
    copy_corpus(folder, other, 0.1)
    index_corpus(other, index, workers=1)
    second = [row["level"] for row in read_index(index)]
    assert second == pytest.approx([0.01 * x for x in first], rel=1e-2)
    path = other / "a" / "0.wav"
    soundfile.write(path, 0.5 * soundfile.read(path)[0], RATE, "FLOAT")
    index_corpus(other, index, workers=1)
    third = [row["level"] for row in read_index(index)]
    assert third[0] == pytest.approx(0.25 * second[0], rel=1e-2)
    assert third[1:] == second[1:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("modified", "changed"),
        lambda text: text.replace("/", "\0/", 1),
        lambda text: text.replace(",0.", ",x"),
        lambda text: re.sub(",[0-9]+$", ",", text, flags=re.M),
    ],
)
def test_a_damaged_index_is_made_again(corpus, tmp_path, damage):
    index = tmp_path / "index.csv"
    index_corpus(corpus[0], index, workers=1)
    text = index.read_text()
    index.write_text(damage(text))
    index_corpus(corpus[0], index, workers=1)
    assert index.read_text() == text


def test_decoded_speech_that_was_cut_is_decoded_again(tmp_path):
    for name, frequency in zip("ab", (500, 900)):
        write_talker(tmp_path / "corpus", name, ".opus", frequency, 1.0)
    index = tmp_path / "index.csv"
    index_corpus(tmp_path / "corpus", index, workers=1)
    decoded = index.with_suffix(".pcm")
    whole = decoded.read_bytes()
    decoded.write_bytes(whole[:-2])
    index_corpus(tmp_path / "corpus", index, workers=1)
    assert decoded.read_bytes() == whole
    decoded.unlink()
    index_corpus(tmp_path / "corpus", index, workers=1)
    assert decoded.read_bytes() == whole


def test_index_names_what_is_unusable(tmp_path):
    with pytest.raises(UserError, match="there are no recordings in"):
        index_corpus(tmp_path, tmp_path / "index.csv")
    (tmp_path / "a").mkdir()
    soundfile.write(
        tmp_path / "a" / "0.wav", np.full(8000, np.nan), RATE, "FLOAT"
    )
    with pytest.raises(UserError, match=r"a/0\.wav .*has NaN"):
        index_corpus(tmp_path, tmp_path / "index.csv", workers=1)
    assert not (tmp_path / "index.csv").exists()


def write_talker(folder, name, suffix, frequency, seconds, rate=RATE):
    """A recording of a tone in some format."""
    (folder / name).mkdir(parents=True)
    path = folder / name / f"0{suffix}"
    options = {".opus": dict(format="OGG", subtype="OPUS")}.get(suffix, {})
    soundfile.write(path, tone(frequency, 0.5, seconds, rate), rate, **options)


def test_several_corpora_of_any_format(tmp_path):
    # Talkers of the same name in two corpora are two people.
    suffixes = (".wav", ".flac", ".opus", ".mp3", ".ogg", ".aiff")
    names = {}
    for number, suffix in enumerate(suffixes):
        frequency = 400 * (number + 1)
        folder = tmp_path / ("one", "other")[number % 2]
        write_talker(folder, f"talker{number // 2}", suffix, frequency, 2.5)
        names[frequency] = suffix
    corpora = [tmp_path / "one", tmp_path / "other"]
    indices = [tmp_path / "corpus.csv", tmp_path / "corpus1.csv"]
    for corpus, index in zip(corpora, indices):
        index_corpus(corpus, index, workers=1)
    recordings = read_corpora(corpora, indices)
    assert len({row["speaker"] for row in recordings}) == len(suffixes)
    assert sum("decoded" in row for row in recordings) == 3
    # What was decoded is read from there, the rest from its files.
    for path in tmp_path.glob("*/*/*"):
        if path.suffix in (".opus", ".mp3", ".ogg"):
            path.unlink()
    dataset = DynamicMixing("", recordings, 6, segment_seconds=2.0)
    found = frequencies(dataset[0]["sources"])
    assert sorted(found) == pytest.approx(sorted(names), abs=3)


def test_decoded_speech_is_that_of_its_file(tmp_path):
    for name, frequency in zip("ab", (500, 900)):
        write_talker(tmp_path / "corpus", name, ".opus", frequency, 3.0)
    index = tmp_path / "index.csv"
    index_corpus(tmp_path / "corpus", index, workers=1)
    for row in read_index(index):
        whole, _ = soundfile.read(tmp_path / "corpus" / row["path"])
        piece = read_part(tmp_path / "corpus", row, 1000, 5000)
        assert np.abs(piece - whole[1000:6000]).max() < 2**-14


@pytest.mark.parametrize(
    "shares, first, counts",
    [
        (None, [2, 3, 4, 2], [4, 3, 3]),
        ([1, 1, 1], [2, 3, 4, 2], [4, 3, 3]),
        ([2, 1, 1], [2, 3, 4, 2], [5, 3, 2]),
        ([0.8, 0.1, 0.1], [2, 2, 2, 3], [8, 1, 1]),
    ],
)
def test_shares_of_numbers_of_talkers(corpus, shares, first, counts):
    dataset = DynamicMixing(
        *corpus, num_spks=(2, 3, 4), epoch_size=10, shares=shares
    )
    assert dataset.num_spks[:4] == first
    assert [dataset.num_spks.count(k) for k in (2, 3, 4)] == counts
    for index in range(3):
        assert dataset[index]["sources"].shape[1] == dataset.num_spks[index]


@pytest.mark.parametrize("shares", [[1], [1, 0, 1], [1, -1, 2]])
def test_shares_that_cannot_be(corpus, shares):
    with pytest.raises(UserError, match="shares must be positive, one for"):
        DynamicMixing(*corpus, num_spks=(2, 3, 4), shares=shares)


def test_talkers_drawn_by_what_they_say(corpus):
    folder, recordings = corpus
    # The first talker says as much as the three others together.
    longer = [
        {**row, "samples": row["samples"] * (3 if row["speaker"] == "a" else 1)}
        for row in recordings
    ]
    shares = {}
    for power in (0.0, 1.0):
        dataset = DynamicMixing(folder, longer, 2, by_length=power)
        chances = dataset.chances
        shares[power] = None if chances is None else chances.round(6).tolist()
    assert shares == {0.0: None, 1.0: [0.5, *[round(1 / 6, 6)] * 3]}


def test_partial_overlap(corpus):
    shares = []
    for index in range(30):
        item = DynamicMixing(*corpus, segment_seconds=2.0, overlap=0.3)[index]
        sources = item["sources"]
        torch.testing.assert_close(sources.sum(1), item["mixture"])
        for source in sources.T:
            heard = source.abs().nonzero()
            spoken = len(source) - int((source == 0).sum())
            shares.append(spoken / len(source))
            # One turn: nothing but zeros before and after.
            assert int(heard[-1] - heard[0]) + 1 <= spoken + 40
    shares = torch.tensor(shares)
    # With what is heard while a turn fades in and out.
    assert 0.28 < shares.min() < 0.5 and shares.max() > 0.9
    assert abs(shares.mean() - 0.65) < 0.1


def test_full_overlap_is_that_without(corpus):
    one, other = DynamicMixing(*corpus), DynamicMixing(*corpus, overlap=1.0)
    assert torch.equal(one[3]["mixture"], other[3]["mixture"])


@pytest.mark.parametrize("overlap", [0.0, -0.1, 1.1, float("nan")])
def test_overlap_that_cannot_be(corpus, overlap):
    with pytest.raises(UserError, match=r"overlap must be in \(0, 1\]"):
        DynamicMixing(*corpus, overlap=overlap)


@pytest.fixture(scope="module")
def hum(tmp_path_factory):
    """Recordings, with whole paths, of a deep hum and of silence."""
    folder = tmp_path_factory.mktemp("noise")
    rows = []
    for name, amplitude in (("hum", 0.3), ("silence", 0.0)):
        path = folder / f"{name}.wav"
        soundfile.write(path, tone(50, amplitude, 0.5), RATE, "FLOAT")
        row = dict(path=str(path), speaker=name, samples=4000)
        rows.append(row | dict(sample_rate=RATE, level=1.0))
    return rows


def test_noise_has_its_level_and_changes_nothing_else(corpus, hum):
    clean = DynamicMixing(*corpus, segment_seconds=1.0)
    noisy = DynamicMixing(
        *corpus, segment_seconds=1.0, noise=hum[:1], noise_snr=(4, 6)
    )
    ratios = []
    for index in range(8):
        item, quiet = noisy[index], clean[index]
        assert torch.equal(item["sources"], quiet["sources"])
        noise = item["mixture"] - item["sources"].sum(1)
        assert frequencies(noise[:, None]) == pytest.approx([50], abs=1)
        ratios.append(level_db(quiet["mixture"]) - level_db(noise))
    assert 4 - 1e-3 < min(ratios) < max(ratios) < 6 + 1e-3
    assert max(ratios) - min(ratios) > 0.5


def test_share_of_noisy_mixtures(corpus, hum):
    dataset = DynamicMixing(
        *corpus, segment_seconds=0.1, noise=hum[:1], noise_share=0.3
    )
    noisy = [
        not torch.allclose(item["mixture"], item["sources"].sum(1), atol=1e-6)
        for item in (dataset[index] for index in range(100))
    ]
    assert 15 <= sum(noisy) <= 45


def test_silent_noise_is_none(corpus, hum):
    item = DynamicMixing(*corpus, segment_seconds=0.5, noise=hum[1:])[0]
    assert torch.allclose(item["mixture"], item["sources"].sum(1), atol=1e-6)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"noise_snr": [10]}, r"noise_snr must be two .* got \[10\]"),
        ({"noise_snr": [30, 10]}, "noise_snr must be two levels"),
        ({"noise_share": 1.5}, "noise_share must be from 0 to 1, got 1.5"),
        ({"max_gain": -1}, "max_gain must be 0 or more, got -1"),
    ],
)
def test_refuses_settings_of_noise(corpus, settings, message):
    with pytest.raises(UserError, match=message):
        DynamicMixing(*corpus, **settings)


def test_largest_gain(corpus):
    dataset = DynamicMixing(*corpus, max_gain=6.0, segment_seconds=2.0)
    gains = []
    for index in range(20):
        levels = [level_db(x) for x in dataset[index]["sources"].T]
        gains.append((levels[0] - levels[1]) / 2)
    assert -0.1 < min(gains) and 4.0 < max(gains) < 6.1
