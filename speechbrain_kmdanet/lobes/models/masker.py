"""The contract of a masker: how it is called, and how many talkers it takes."""

import operator
from collections.abc import Callable

from torch import Tensor, nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.processing.bins import is_exporting

MOST_TALKERS = 100  # a mask of the whole mixture each, beside its waveform


class Masker(nn.Module):
    """What all maskers have in common.

    Called as the masknet of SpeechBrain's separators: spectrum in, masks with
    the sources first out. A masker implements ``make``, which takes the
    arguments of :meth:`forward` with a number of talkers that was checked, and
    returns masks and embeddings, None for those that it did not make.

    Arguments
    ---------
    num_spks : int
        Number of talkers when the call does not say.
    """

    # Whether, in the current mode, mask l belongs to source l; then the
    # sources have to be given.
    ordered = False
    # Whether a call may ask for another number of talkers.
    any_number = True
    # Whether attractors can be handed in.
    takes_attractors = False
    # What losses can be made of in training.
    outputs = frozenset({"masks"})
    make: Callable[..., tuple[Tensor | None, Tensor | None]]

    def __init__(self, num_spks: int = 2) -> None:
        super().__init__()
        self.num_spks = num_spks

    def forward(
        self,
        spectrum: Tensor,
        num_frames: Tensor | None = None,
        num_spks: int | None = None,
        sources: Tensor | None = None,
        attractors: Tensor | None = None,
        with_embeddings: bool = False,
        with_masks: bool = True,
        embeddings: Tensor | None = None,
    ) -> Tensor | None | tuple[Tensor | None, Tensor | None]:
        """Computes the masks.

        Arguments
        ---------
        spectrum : torch.Tensor
            Complex spectrum of the mixture [B, F, T]; in the waveform domain,
            real features of that shape.
        num_frames : torch.Tensor
            Number of frames of each item that are not padding [B]; None if
            there is no padding.
        num_spks : int
            Number of talkers K; that of the attractors, or of the
            constructor, by default.
        sources : torch.Tensor
            Spectra of the sources [B, K, F, T], which oracles need.
        attractors : torch.Tensor
            Attractors [B, K, D] of the talkers: nothing is estimated then.
        with_embeddings : bool
            Whether to return a pair, the embeddings beside the masks.
        with_masks : bool
            Whether the masks are wanted, too; without them, a masker that
            has embeddings spares itself the rest.
        embeddings : torch.Tensor
            Embeddings [B, T · F, D] that it made of this spectrum before: they
            are not made again.

        Returns
        -------
        masks : torch.Tensor
            Masks [K, B, F, T], real; None if they were spared.
        embeddings : torch.Tensor
            Embeddings [B, T · F, D], if asked for; None if there are none.

        Raises
        ------
        UserError
            If the masker cannot separate so many talkers, in general or in
            so short a mixture, or an argument does not fit.
        """
        num_spks = self._resolve(num_spks, spectrum, attractors)
        # Where waiting for the device costs little.
        if not self.training and not is_exporting():
            _check_bins(num_spks, spectrum, num_frames)
        masks, embeddings = self.make(
            spectrum,
            num_frames,
            num_spks,
            sources,
            attractors,
            with_masks,
            embeddings,
        )
        return (masks, embeddings) if with_embeddings else masks

    def _resolve(
        self, num_spks: int | None, spectrum: Tensor, attractors: Tensor | None
    ) -> int:
        """The number of talkers, if there can be so many."""
        count = check_num_spks(self.num_spks if num_spks is None else num_spks)
        if attractors is not None:
            if not self.takes_attractors:
                raise UserError(
                    "attractors must be None: this network has no attractors"
                )
            shape = tuple(attractors.shape)
            wanted = "num_spks" if num_spks is None else count
            if len(shape) != 3 or shape[0] != len(spectrum):
                count = 0
            elif num_spks is None:
                count = check_num_spks(shape[1])
            if shape[1:2] != (count,):
                raise UserError(
                    f"attractors must have shape [{len(spectrum)}, {wanted}, "
                    f"embedding_dim], got {list(shape)}"
                )
        if count != self.num_spks and not self.any_number:
            raise UserError(
                f"this network separates num_spks={self.num_spks} talkers "
                f"only, got num_spks={count}: train one for them, or use one "
                "that clusters embeddings"
            )
        return count


def check_num_spks(num_spks: object) -> int:
    """A number of talkers, if it is one.

    Arguments
    ---------
    num_spks : object
        What was given.

    Returns
    -------
    int
        The number, from 1 to 100.

    Raises
    ------
    UserError
        If it is no such integer.
    """
    try:
        count = operator.index(num_spks)  # type: ignore[arg-type]
    except TypeError:
        count = 0
    if count < 1 or isinstance(num_spks, bool):
        raise UserError(f"num_spks must be an integer >= 1, got {num_spks!r}")
    if count > MOST_TALKERS:
        raise UserError(
            f"num_spks={count} talkers need as many masks and waveforms, "
            f"which would fill the memory: at most {MOST_TALKERS} are "
            "separated, ask for fewer talkers"
        )
    return count


def _check_bins(
    num_spks: int, spectrum: Tensor, num_frames: Tensor | None
) -> None:
    """Refuses more talkers than bins of an item."""
    batch, num_bins, max_frames = spectrum.shape
    frames = [max_frames] if num_frames is None else num_frames.tolist()
    for item, bins in enumerate(num_bins * count for count in frames):
        if bins < num_spks:
            which = "the mixture" if batch == 1 else f"item {item} of the batch"
            raise UserError(
                f"num_spks={num_spks} talkers cannot be told apart in the "
                f"{bins} time-frequency bins of {which}: ask for fewer talkers "
                "or give a longer mixture"
            )


def check_active_bins(weights: Tensor, num_spks: int) -> None:
    """Refuses more talkers than bins that count; silence is let through.

    Arguments
    ---------
    weights : torch.Tensor
        Weights of the bins in a clustering [B, N].
    num_spks : int
        Number of talkers.

    Raises
    ------
    UserError
        If an item has fewer bins of positive weight, but some.
    """
    if is_exporting():
        return
    active = (weights > 0).sum(1)
    scarce = (active > 0) & (active < num_spks)
    if scarce.any():
        item = int(scarce.nonzero()[0])
        raise UserError(
            f"num_spks={num_spks} talkers cannot be told apart in item {item} "
            f"of the batch, of which only {int(active[item])} time-frequency "
            "bins have enough energy: ask for fewer talkers or give a longer "
            "mixture"
        )


def fit_attractors(attractors: Tensor, embeddings: Tensor) -> Tensor:
    """Refuses attractors of another space than that of the embeddings.

    Arguments
    ---------
    attractors : torch.Tensor
        Attractors [B, K, D].
    embeddings : torch.Tensor
        Embeddings [B, N, D].

    Returns
    -------
    torch.Tensor
        The attractors, with the type and the device of the embeddings.

    Raises
    ------
    UserError
        If their dimensions differ.
    """
    if attractors.shape[2] != embeddings.shape[2]:
        raise UserError(
            f"attractors must have {embeddings.shape[2]} dimensions as the "
            f"embeddings of this network, got {attractors.shape[2]}"
        )
    return attractors.to(embeddings)
