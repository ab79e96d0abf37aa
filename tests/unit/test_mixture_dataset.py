"""Tests of listed mixtures and of segments of them."""

import csv

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_kmdanet.dataio.mixture_dataset import MixtureDataset
from speechbrain_kmdanet.errors import UserError

RATE = 8000


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
        dataset.epoch = epoch
        return read_all(dataset, order)

    items = segments()
    lengths = {name: len(item["mixture"]) for name, item in items.items()}
    assert lengths == {"long": 2000, "longer": 2000, "short": 600}
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


def test_fewer_sources_than_others_have(listed, tmp_path):
    with listed.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["s3_wav"] = row["s2_wav"] if row["ID"] == "longer" else ""
    with (tmp_path / "tr.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    dataset = MixtureDataset.from_csv(str(tmp_path / "tr.csv"))
    assert dataset.num_spks == [2, 3, 2]
    shapes = [dataset[index]["sources"].shape for index in range(3)]
    assert shapes == [(8000, 2), (9000, 3), (600, 2)]


def test_unusable_files_are_named(listed, tmp_path):
    (tmp_path / "s2.wav").write_text("no audio")
    rows = listed.read_text().replace(
        str(listed.parent / "longer_s2.wav"), str(tmp_path / "s2.wav")
    )
    (tmp_path / "tr.csv").write_text(rows)
    dataset = MixtureDataset.from_csv(tmp_path / "tr.csv")
    message = f"{tmp_path}/s2.wav: unreadable: Format not recognised .copy"
    with pytest.raises(UserError, match=message) as error:
        dataset[1]
    # PyTorch makes an error of a loader's worker again from its text alone.
    assert type(error.value) is UserError


def varied(listed, id="longer", **options):
    dataset = MixtureDataset.from_csv(
        str(listed), segment_seconds=0.25, **options
    )
    return read_all(dataset)[id]


def test_sources_of_segments_are_shifted(listed):
    plain, shifted = varied(listed), varied(listed, random_shift=True)
    for one, other in zip(plain["sources"].T, shifted["sources"].T):
        # Round the ends: the same samples, in the same order
        (start,) = (other == one[0]).nonzero()
        assert torch.equal(other.roll(-int(start)), one) and start > 0
    torch.testing.assert_close(
        shifted["mixture"], shifted["sources"].sum(1), atol=1e-6, rtol=0
    )


def test_sources_of_segments_change_their_speed(listed):
    plain = varied(listed)
    steps = set()
    for seed in range(8):
        item = varied(listed, seed=seed, speeds=[0.5, 2.0])
        assert item["sources"].shape == plain["sources"].shape
        # Ramps: twice as steep at twice the speed (and not near the ends)
        slopes = item["sources"][500:1500].diff(dim=0).mean(0)
        before = plain["sources"].diff(dim=0).mean(0)
        steps.update((slopes / before).log2().round(decimals=1).tolist())
        torch.testing.assert_close(
            item["mixture"], item["sources"].sum(1), atol=1e-6, rtol=0
        )
    assert steps == {-1.0, 1.0}


def test_what_is_no_source_stays(tmp_path):
    rng = np.random.default_rng(0)
    signals = {x: 0.1 * rng.standard_normal(4000) for x in ("s1", "s2", "hiss")}
    signals["mix"] = sum(signals.values())
    for part in ("mix", "s1", "s2"):
        soundfile.write(tmp_path / f"{part}.wav", signals[part], RATE, "FLOAT")
    row = {f"{x}_wav": str(tmp_path / f"{x}.wav") for x in ("mix", "s1", "s2")}
    item = MixtureDataset({"a": row}, segment_seconds=1.0, random_shift=True)[0]
    hiss = item["mixture"] - item["sources"].sum(1)
    np.testing.assert_allclose(hiss, signals["hiss"], atol=1e-6)
    assert not np.allclose(item["sources"][:, 0], signals["s1"], atol=1e-3)
