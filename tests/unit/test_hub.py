"""A separator's folder for a hub loads where the package is not installed."""

import re
import subprocess
import sys

import pytest
import torch
from tiny_separator import write_separator

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.utils.hub import (
    CUSTOM,
    INTERFACE,
    make_custom,
    write_hub_folder,
)

# The package is neither installed nor beside it.
FOREIGN = f"""
import importlib.util, sys
root, folder, mixture, made = sys.argv[1:]
sys.path = [path for path in sys.path if path and path != root]
sys.meta_path = [x for x in sys.meta_path if "editable" not in repr(x).lower()]
assert importlib.util.find_spec("speechbrain_kmdanet") is None
import torch
from speechbrain.inference.interfaces import foreign_class
separator = foreign_class(
    folder,
    pymodule_file="{CUSTOM}",
    classname="AttractorSeparation",
    savedir=folder + "_fetched",
    overrides={{"num_spks": 3}},
)
assert sys.modules["{INTERFACE}"].__file__.startswith(folder)
torch.save(separator.separate_batch(torch.load(mixture)), made)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    source = write_separator(tmp_path_factory.mktemp("source"))
    folder = tmp_path_factory.mktemp("hub") / "separator"
    assert all(path.is_file() for path in write_hub_folder(source, folder))
    return source, folder


def test_loads_without_the_package(folders, tmp_path, pytestconfig):
    source, folder = folders
    mixture = torch.randn(2, 4000)
    torch.save(mixture, tmp_path / "mixture.pt")
    arguments = pytestconfig.rootpath, folder, "mixture.pt", "made.pt"
    made = subprocess.run(
        [sys.executable, "-c", FOREIGN, *map(str, arguments)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert made.returncode == 0, made.stderr
    sources = torch.load(tmp_path / "made.pt")
    separator = AttractorSeparation.from_hparams(source)
    assert torch.equal(sources, separator.separate_batch(mixture, 3))


def test_our_loader_runs_nothing_of_it(folders, tmp_path):
    folder = tmp_path / "again"
    write_hub_folder(folders[1], folder)
    (folder / CUSTOM).write_text("raise SystemExit('it was run')")
    separator = AttractorSeparation.from_hparams(folder)
    mixture = torch.randn(1, 4000)
    ours = AttractorSeparation.from_hparams(folders[0])
    assert torch.equal(
        separator.separate_batch(mixture), ours.separate_batch(mixture)
    )


def test_a_card_is_kept_or_made(folders, tmp_path):
    source, folder = folders
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: speechbrain\n")
    assert "# separator\n" in card
    (folder / "README.md").write_text("mine")
    written = write_hub_folder(folder, tmp_path / "other")
    assert (tmp_path / "other" / "README.md").read_text() == "mine"
    assert len(written) == 4
    # In place, only custom.py is new.
    assert write_hub_folder(folder, folder) == [folder / CUSTOM]


def test_only_what_is_needed_is_in_it(folders):
    text = (folders[1] / CUSTOM).read_text()
    names = re.findall(r'^    "(speechbrain_kmdanet[.\w]*)": ', text, re.M)
    assert names == sorted(set(names))
    assert "speechbrain_kmdanet.lobes.models.danet" in names
    assert not {"plots", "corpus", "mixing"} & {x.split(".")[-1] for x in names}


def test_modules_that_there_are_not():
    with pytest.raises(UserError, match="no speechbrain_kmdanet.lobes.nothing"):
        make_custom(["speechbrain_kmdanet.lobes.nothing"])
