"""The output folder of a training: whose it is, and that it is complete.

Whatever a checkpoint goes on with must be what it was begun with. The settings
of a training stand in its folder, and a run with others is refused there.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ruamel.yaml
from ruamel.yaml.error import YAMLError
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.jobs import only_process, write_whole
from speechbrain_kmdanet.utils.yaml_layers import (
    MODULES,
    Overrides,
    save_settings,
)

OTHER_FOLDER = "give another output_folder"
# What a training can go on with that has changed, at any depth: where things
# are (what the data are is seen from them), how fast they come, how long it
# goes on, and what is done with its result. The objects repeat these.
MAY_CHANGE = {
    *("data_folder", "dynamic_mixing", "noise", "mixtures"),
    *("output_folder", "save_folder", "train_log"),
    *("test_folder", "pretrained_folder", "half_weights", "initial_weights"),
    *("compute_sdr", "num_examples"),
    *("ckpt_interval_minutes", "ckpt_interval_steps"),
    *("num_workers", "prefetch_factor", "pin_memory", "timeout"),
    *("valid_loader_options", "test_loader_options"),
    *("number_of_epochs", "total_steps"),
    *("epoch_counter", "lr_scheduler", "checkpointer", "train_logger"),
    *("tracking", "tracker"),
}
# What a test must have as in the training, and its separator besides.
TESTED = {"system", "ema_decay"}
SEPARATOR = ("sample_rate", "num_spks", *MODULES)


class RunFolder:
    """Output folder of a run, with the settings that the run has.

    Arguments
    ---------
    path : str or pathlib.Path
        The folder; :meth:`opened` makes it.
    hparams_file : str or pathlib.Path
        YAML file of the run.
    overrides : str or dict
        Values that replace those of the file, also as YAML.
    """

    def __init__(
        self, path: str | Path, hparams_file: str | Path, overrides: Overrides
    ) -> None:
        self.path = Path(path)
        self.settings_file = self.path / "hyperparams.yaml"
        with TemporaryDirectory() as folder:
            copy = Path(folder, "hyperparams.yaml")
            save_settings(hparams_file, overrides, copy)
            self.text = copy.read_text(encoding="utf-8")
        self.settings = _read(self.text, str(hparams_file))

    @contextmanager
    def opened(self, test_only: bool = False) -> Iterator[None]:
        """Has the folder for this run alone, see :meth:`check`."""
        with ExitStack() as stack:
            if if_main_process():
                stack.enter_context(only_process(self.path, OTHER_FOLDER))
                self.check(test_only)
            ddp_barrier()
            yield

    def check(self, test_only: bool = False) -> None:
        """Refuses a folder with a training that this run cannot go on with.

        Arguments
        ---------
        test_only : bool
            Whether the run tests what was trained, perhaps differently.

        Raises
        ------
        UserError
            If there is a training of another system or with other settings,
            or a folder in it is a link.
        """
        for path in self.path.rglob("*"):
            if path.is_symlink() and path.is_dir():
                raise UserError(
                    f"{path} is a link to a folder, and what a run writes "
                    "stays in its own: give the folder itself, as "
                    "save_folder, test_folder or pretrained_folder"
                )
        trained = self._trained()
        if trained is None or not any(
            any(Path(str(settings["save_folder"])).glob("CKPT*"))
            for settings in (trained, self.settings)
        ):
            return
        keys = set(trained) & set(self.settings)
        if test_only:
            keys &= TESTED
        for key in differences(trained, self.settings, keys):
            old, new = (_show(x.get(key)) for x in (trained, self.settings))
            raise UserError(
                f"{self.path} holds a training with {key} {old}, expected "
                f"{new}: {OTHER_FOLDER}, or the settings of that training"
            )

    def prepare(self) -> None:
        """Removes what would lead out of the folder, and rests of killed runs."""
        for path in self.path.iterdir():
            if path.is_symlink():
                path.unlink()
        for path in self.path.rglob(".*.tmp"):
            path.unlink()

    def record(self) -> None:
        """Writes the settings: to be called when everything was checked."""
        with write_whole(self.settings_file) as unfinished:
            unfinished.write_text(self.text, encoding="utf-8")

    def is_as_trained(self) -> bool:
        """Whether the separator is that of the training in the folder.

        Returns
        -------
        bool
            Whether all of it is as it was trained; also where nothing was.
        """
        trained = self._trained()
        return trained is None or not any(
            differences(trained, self.settings, SEPARATOR)
        )

    def _trained(self) -> Mapping[str, Any] | None:
        """Settings of the training in the folder, None if there is none."""
        if not self.settings_file.is_file():
            return None
        text = self.settings_file.read_text(encoding="utf-8", errors="replace")
        return _read(text, str(self.settings_file))


def differences(
    settings: Mapping[str, Any], others: Mapping[str, Any], keys: Iterable[str]
) -> Iterator[str]:
    """Keys whose values differ, single values first: others repeat these.

    Arguments
    ---------
    settings, others : dict
        Settings as they stand in YAML files.
    keys : iterable of str
        Keys to compare, but for those that may change.

    Yields
    ------
    str
        Such keys, in the order of the settings.

    Example
    -------
    >>> two, three = {"lr": 0.1, "num_spks": 2}, {"lr": 0.1, "num_spks": 3}
    >>> list(differences(two, three, two))
    ['num_spks']
    """
    wanted = set(keys) - MAY_CHANGE
    order = [key for key in {**settings, **others} if key in wanted]
    order.sort(key=lambda key: isinstance(settings.get(key), (dict, list)))
    for key in order:
        if not _agree(settings.get(key), others.get(key)):
            yield key


def _agree(value: Any, other: Any) -> bool:
    """Whether values of a YAML file are the same.

    What one of two mappings lacks has come with another version of this
    package, which keeps what it did without.
    """
    tags = (
        getattr(getattr(x, "tag", None), "value", None) for x in (value, other)
    )
    if len(set(tags)) > 1:
        return False
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        keys = (value.keys() & other.keys()) - MAY_CHANGE
        return all(_agree(value[key], other[key]) for key in keys)
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(_agree, value, other))
    # Tagged scalars are compared by what they say.
    return getattr(value, "value", value) == getattr(other, "value", other)


def _read(text: str, path: str) -> Mapping[str, Any]:
    """Settings as they stand in a YAML file."""
    try:
        settings = ruamel.yaml.YAML().load(text)
    except YAMLError as error:
        settings = error
    if not isinstance(settings, Mapping):
        raise UserError(
            f"{path} is damaged, so that nobody knows what was trained here: "
            f"bring it back from a copy, or {OTHER_FOLDER}"
        )
    return settings


def _show(value: Any) -> str:
    """A setting in a message."""
    tag = getattr(getattr(value, "tag", None), "value", None)
    return str(tag).removeprefix("!new:") if tag else str(value)
