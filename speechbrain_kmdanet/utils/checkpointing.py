"""Checkpoints that are whole, and known to be undamaged when they are taken."""

import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from speechbrain.utils.checkpoints import (
    CKPT_PREFIX,
    DEFAULT_SAVE_HOOKS,
    METAFNAME,
    Checkpoint,
    Checkpointer,
    get_default_hook,
    torch_save,
)
from speechbrain.utils.distributed import (
    ddp_barrier,
    if_main_process,
    main_process_only,
)
from speechbrain.utils.logger import get_logger
from torch import nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.export import must_fit, write_tensors
from speechbrain_kmdanet.utils.jobs import digest

logger = get_logger(__name__)

UNFINISHED = ".unfinished+"  # before the name of a checkpoint
DIGESTS = "sha256"  # of all files, in the meta data


class WholeCheckpointer(Checkpointer):
    """Checkpointer that survives kills, full disks and damaged files.

    A checkpoint is written beside its place and renamed when it is finished,
    with the SHA-256 of each file in its meta data. Unfinished ones are removed
    when a training continues; damaged ones are named, and one before is taken.
    The folder is made with the first checkpoint.

    Arguments
    ---------
    checkpoints_dir : str or pathlib.Path
        Folder of the checkpoints.
    recoverables : dict
        What is saved, by name.
    **options : dict
        Further arguments of SpeechBrain's Checkpointer.

    Example
    -------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     saver = WholeCheckpointer(folder, {"net": nn.Linear(1, 1)})
    ...     saved = saver.save_checkpoint(meta={"epoch": 1})
    ...     size = (saved.path / "net.ckpt").write_bytes(b"damaged")
    ...     try:
    ...         saver.recover_if_possible()
    ...     except UserError as error:
    ...         print("net.ckpt is damaged" in str(error))
    True
    """

    def __init__(
        self,
        checkpoints_dir: str | Path,
        recoverables: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        # SpeechBrain's makes the folder that it is given.
        super().__init__(os.curdir, recoverables, **options)
        self.checkpoints_dir = Path(checkpoints_dir)
        # Meta data of all checkpoints.
        self.about: dict[str, Any] = {}
        self.damage: dict[Path, str | None] = {}

    def save_checkpoint(
        self,
        *arguments: Any,
        verbosity: int = logging.INFO,
        **options: Any,
    ) -> Any:
        """Saves one, see :class:`speechbrain.utils.checkpoints.Checkpointer`.

        Raises
        ------
        OSError
            If it cannot be written; then there is no part of it.
        """
        for name, obj in self.recoverables.items():
            if get_default_hook(obj, DEFAULT_SAVE_HOOKS) is torch_save:
                self.custom_save_hooks.setdefault(name, _save_state)
        try:
            saved = super().save_checkpoint(
                *arguments, verbosity=logging.DEBUG, **options
            )
            if saved is not None:
                saved = self._finish(saved)
                logger.log(verbosity, f"Saved a checkpoint in {saved.path}")
        except OSError:
            self.remove_unfinished()
            raise
        ddp_barrier()
        return saved

    def save_and_keep_only(
        self,
        *arguments: Any,
        importance_keys: Iterable[Any] = (),
        **options: Any,
    ) -> None:
        """Saves one and deletes others, see :meth:`save_checkpoint`.

        SpeechBrain's own default keys become more at each call.
        """
        super().save_and_keep_only(
            *arguments, importance_keys=[*importance_keys], **options
        )

    def _new_checkpoint_dirpath(self) -> Path:
        """Where a checkpoint is written: beside its place."""
        path = super()._new_checkpoint_dirpath()
        return path.with_name(UNFINISHED + path.name)

    def _finish(self, saved: Checkpoint) -> Checkpoint:
        """Puts a checkpoint that was written into its place."""
        digests = {x.name: digest(x) for x in saved.path.glob("*.ckpt")}
        meta = {**saved.meta, **self.about, DIGESTS: digests}
        self._save_checkpoint_metafile(saved.path / METAFNAME, meta)
        path = saved.path.with_name(saved.path.name.removeprefix(UNFINISHED))
        saved.path.rename(path)
        self.damage[path] = None
        files = {name: path / x.name for name, x in saved.paramfiles.items()}
        return Checkpoint(path, meta, files)

    def remove_unfinished(self) -> None:
        """Removes what a killed process has left."""
        if if_main_process():
            for path in self.checkpoints_dir.glob(f"{UNFINISHED}*"):
                shutil.rmtree(path)

    def list_checkpoints(self) -> list[Checkpoint]:
        """Lists all checkpoints that are whole; each is read once.

        Returns
        -------
        list of Checkpoint
            The checkpoints.
        """
        folders = [
            path
            for path in sorted(self.checkpoints_dir.glob(f"{CKPT_PREFIX}*"))
            if path.is_dir()
        ]
        for path in folders:
            if path not in self.damage:
                self.damage[path] = _find_damage(path)
        whole = [path for path in folders if self.damage[path] is None]
        return self._construct_checkpoint_objects(whole)

    def find_checkpoint(self, *arguments: Any, **options: Any) -> Any:
        """Finds a whole one, see :meth:`recover_if_possible`.

        Raises
        ------
        UserError
            If there are checkpoints, but all are damaged.
        """
        found = super().find_checkpoint(*arguments, **options)
        damaged = [text for text in self.damage.values() if text]
        if damaged and found is None:
            raise UserError(
                f"{damaged[0]}, and there is no other checkpoint to take: bring "
                "it back from a copy, or remove its folder to start anew"
            )
        return found

    def recover_if_possible(self, *arguments: Any, **options: Any) -> Any:
        """Loads one, see :class:`speechbrain.utils.checkpoints.Checkpointer`.

        Raises
        ------
        UserError
            If all are damaged now, or it is of another model.
        """
        self.damage.clear()
        found = super().recover_if_possible(*arguments, **options)
        for text in filter(None, self.damage.values()):
            logger.warning(f"{text}; this checkpoint is left out")
        return found

    def belong_to(self, name: str, value: Any) -> None:
        """States what all checkpoints here belong to, by its digest.

        Arguments
        ---------
        name : str
            What it is called.
        value : object
            Anything that can be written as JSON.

        Raises
        ------
        UserError
            If the last checkpoint belongs to something else.
        """
        text = json.dumps(value)
        found = hashlib.sha256(text.encode()).hexdigest()
        last = self.find_checkpoint()
        if last and last.meta.get(name, found) != found:
            raise UserError(
                f"{last.path} is of a training with other {name}: give another "
                f"output_folder, or the {name} of that training"
            )
        self.about[name] = found

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Loads a checkpoint.

        Arguments
        ---------
        checkpoint : Checkpoint
            The checkpoint.

        Raises
        ------
        UserError
            If it is of another model, or of another kind of training.
        """
        for name in self.recoverables:
            optional = self.optional_recoverables.get(name)
            # Without its place, an epoch begins anew.
            optional = optional or name.startswith("dataloader")
            if name not in checkpoint.paramfiles and not optional:
                raise UserError(
                    f"the checkpoint {checkpoint.path} has no {name}: give "
                    "the options of its training"
                )
        with must_fit(f"the checkpoint {checkpoint.path}"):
            super().load_checkpoint(checkpoint)


@main_process_only
def _save_state(obj: Any, path: Path) -> None:
    """As SpeechBrain's, but a full disk is an OSError."""
    write_tensors(obj.state_dict(), path)


def _find_damage(checkpoint: Path) -> str | None:
    """What is damaged in the folder of a checkpoint, as a text."""
    if checkpoint.is_symlink():
        return f"{checkpoint} is a link, which is not followed"
    try:
        meta = yaml.safe_load((checkpoint / METAFNAME).read_text("utf-8"))
        float(meta["unixtime"]), meta["end-of-epoch"]
        # There were none before.
        digests = dict(meta.get(DIGESTS, {}))
    except (OSError, ValueError, TypeError, LookupError, yaml.YAMLError):
        return f"{checkpoint / METAFNAME} is damaged"
    if not digests and not zipfile.is_zipfile(checkpoint / "optimizer.ckpt"):
        return f"{checkpoint / 'optimizer.ckpt'} is damaged"
    for name, expected in digests.items():
        if digest(checkpoint / name) != expected:
            return f"{checkpoint / name} is damaged"
    return None


def all_finite(recoverables: Mapping[str, Any]) -> bool:
    """Whether there is no NaN nor infinity in what a checkpoint would hold.

    Arguments
    ---------
    recoverables : dict
        What is saved, by name, of which modules and optimizers count.

    Returns
    -------
    bool
        Whether all is finite.

    Example
    -------
    >>> net = nn.Linear(1, 1)
    >>> all_finite({"net": net})
    True
    >>> net.bias.data.log_()
    tensor([...
    >>> net.bias.data.fill_(float("nan"))
    tensor([nan])
    >>> all_finite({"net": net})
    False
    """
    return all(
        _is_finite(obj.state_dict())
        for obj in recoverables.values()
        if isinstance(obj, (nn.Module, torch.optim.Optimizer))
    )


def _is_finite(value: Any) -> bool:
    """Whether all tensors in containers of any depth are finite."""
    if isinstance(value, torch.Tensor):
        return bool(value.isfinite().all())
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_finite, value))
    return True
