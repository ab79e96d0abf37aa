"""LibriMix, by links, through the recipe."""

import shutil

import pytest

from recipes.LibriMix.prepare import main

SPLITS = {"train-100": "tr", "dev": "cv", "test": "tt"}


@pytest.fixture
def librimix(data, tmp_path):
    """Our mixtures as LibriMix names them."""
    root = tmp_path / "LibriMix"
    for number, folder in ((2, data.two), (3, data.three)):
        for name, split in SPLITS.items():
            copy = root / f"Libri{number}Mix" / "wav8k" / "min" / name
            shutil.copytree(folder / "wav8k" / "min" / split, copy)
            (copy / "mix").rename(copy / "mix_clean")
    return root


def prepare(librimix, output, *options):
    return main([str(librimix), str(output), *options])


def test_training_on_links(train, data, librimix, tmp_path, capsys):
    output = tmp_path / "links"
    options = "--num_spks", "2", "3", "--train", "train-100"
    assert prepare(librimix, output, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"Train with --data_folder {output / f'{number}speakers'}"
        for number in (2, 3)
    ]
    for number, folder in ((2, data.two), (3, data.three)):
        for path in folder.rglob("*.wav"):
            link = output / f"{number}speakers" / path.relative_to(folder)
            assert link.read_bytes() == path.read_bytes()
            # Links to folders, and no file of audio
            assert link.parent.is_symlink() and not link.is_symlink()
    # The same again changes nothing.
    assert prepare(librimix, output, *options) == 0
    folders = f"[{output / '2speakers'}, {output / '3speakers'}]"
    status = train(
        "kmeans_danet_spherical",
        tmp_path / "output",
        data_folder=folders,
        number_of_epochs=1,
    )
    assert status == 0


def test_what_cannot_be_linked(librimix, tmp_path, capsys):
    def refused(output, *options):
        assert prepare(librimix, output, *options) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    output = tmp_path / "links"
    for options in ((), ("--train", "train-100", "--sample_rate", "16000")):
        line = refused(output, *options)
        assert line.startswith("prepare.py: error: there is no folder")
        assert not output.exists()
    assert prepare(librimix, output, "--train", "train-100") == 0
    other = librimix / "Libri2Mix" / "wav8k" / "min"
    shutil.copytree(other / "train-100", other / "train-360")
    assert "train-360/mix_clean: remove it, or" in refused(output)
    # The links are as they were.
    link = output / "2speakers" / "wav8k" / "min" / "tr" / "mix"
    assert link.resolve() == other / "train-100" / "mix_clean"


@pytest.mark.parametrize("number", [4, 5])
def test_noisy_mixtures_of_more_talkers(librimix, tmp_path, number):
    folder = librimix / f"Libri{number}Mix" / "wav8k" / "min"
    parts = ["mix_both", *(f"s{i}" for i in range(1, number + 1))]
    for name in SPLITS:
        for part in parts:
            (folder / name / part).mkdir(parents=True)
    output = tmp_path / "links"
    options = "--num_spks", str(number), "--train", "train-100"
    assert prepare(librimix, output, *options) == 2  # there is no mix_clean
    assert prepare(librimix, output, *options, "--mixture", "mix_both") == 0
    linked = output / f"{number}speakers" / "wav8k" / "min" / "cv"
    assert {x.name for x in linked.iterdir()} == {"mix", *parts[1:]}
    assert (linked / "mix").resolve() == folder / "dev" / "mix_both"


def test_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--train {train-100,train-360}" in capsys.readouterr().out
