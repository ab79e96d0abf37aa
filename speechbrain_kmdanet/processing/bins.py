"""Spectra as sets of time-frequency bins, and guards for silence and padding.

The N = T · F bins are ordered by frame, then by frequency.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from speechbrain_kmdanet.errors import UserError

# Before PyTorch 2.2 nobody can tell.
is_compiling: Callable[[], bool] = getattr(torch.compiler, "is_compiling", bool)
# Before PyTorch 2.7 nothing is exported.
is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", bool)

# Between these, squares and sums of them neither vanish nor overflow.
LEAST, MOST = 2.0**-30, 2.0**30

KINDS = {
    "floating-point": lambda dtype: dtype.is_floating_point,
    "complex": lambda dtype: dtype.is_complex,
    "real": lambda dtype: not dtype.is_complex,
    "real or complex": lambda dtype: dtype.is_floating_point
    or dtype.is_complex,
}


def describe(value: object) -> str:
    """What an argument is, in one line: a tensor by its type and shape.

    Arguments
    ---------
    value : object
        The argument.

    Returns
    -------
    str
        What it is.

    Example
    -------
    >>> describe(0.5), describe([1, 2]), describe(torch.ones(2, 3))
    ('0.5', 'list', 'torch.float32 of shape (2, 3)')
    """
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    plain = value is None or isinstance(value, bool | int | float | str)
    return repr(value) if plain else type(value).__name__


def check_tensor(
    name: str,
    value: object,
    kind: str = "floating-point",
    device: torch.device | None = None,
    **sizes: int | None,
) -> None:
    """Refuses what is no tensor of a kind and a shape.

    Arguments
    ---------
    name : str
        Name of the argument.
    value : object
        What was given.
    kind : str
        Its type: "floating-point", "complex", "real", "real or complex".
    device : torch.device
        Where it has to be; anywhere by default.
    **sizes : int
        Its size along each dimension, by name; None for any from 1 on.

    Raises
    ------
    UserError
        If it is something else.

    Example
    -------
    >>> check_tensor("x", torch.ones(2, 3), batch=2, points=None)
    >>> check_tensor("x", torch.ones(2, 3), batch=1, points=None)
    Traceback (most recent call last):
    speechbrain_kmdanet.errors.UserError: x must be a non-empty floating-point \
tensor [batch=1, points], got torch.float32 of shape (2, 3)
    """
    got = describe(value)
    if isinstance(value, Tensor):
        if (
            KINDS[kind](value.dtype)
            and len(value.shape) == len(sizes)
            and all(
                size == wanted if wanted else size > 0
                for size, wanted in zip(value.shape, sizes.values())
            )
            and device in (None, value.device)
        ):
            return
        if device not in (None, value.device):
            got += f" on {value.device} instead of {device}"
    shape = ", ".join(
        axis if size is None else f"{axis}={size}"
        for axis, size in sizes.items()
    )
    raise UserError(
        f"{name} must be a non-empty {kind} tensor [{shape}], got {got}"
    )


def tiny(x: Tensor) -> float:
    """Smallest normal number of the type of x: a guard for divisions.

    Arguments
    ---------
    x : torch.Tensor
        Tensor of a floating-point type.

    Returns
    -------
    float
        The number.
    """
    return torch.finfo(x.dtype).tiny


def power_to_unity(peaks: Tensor) -> Tensor:
    """Powers of two that make squares of numbers of any size harmless.

    Arguments
    ---------
    peaks : torch.Tensor
        Largest magnitudes, of any shape.

    Returns
    -------
    torch.Tensor
        What brings each of them to [1, 2): without rounding, as far as it can
        be represented. 1 where there is no need, NaN if one is not finite.

    Example
    -------
    >>> power_to_unity(torch.tensor([0.3, 2.0**70, 0.0]))
    tensor([1.0000e+00, 8.4703e-22, 1.0000e+00])
    """
    most = -math.log2(tiny(peaks))
    powers = peaks.log2().floor().clamp(-most, most).neg().exp2()
    usual = ((peaks >= LEAST) & (peaks <= MOST)) | (peaks == 0)
    powers = torch.where(usual, 1.0, powers)
    return torch.where(peaks < torch.inf, powers, torch.nan)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32, in which clustering and transforms run.

    Arguments
    ---------
    x : torch.Tensor
        Tensor of a floating-point type.

    Returns
    -------
    torch.Tensor
        The same in float32 or more.
    """
    return x.float() if x.dtype.itemsize < 4 else x


def not_compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What stays as it is in a module that PyTorch compiles.

    Arguments
    ---------
    function : callable
        A function whose steps depend on values, or which cannot be compiled.

    Returns
    -------
    callable
        The same function.

    Example
    -------
    >>> not_compiled(abs) is abs
    True
    """
    if is_compiling() and not is_exporting():
        return torch.compiler.disable(function)
    return function


def on_host(x: Tensor) -> bool:
    """Whether what depends on values may be decided by looking at them.

    On another device they would have to be waited for, and in an export there
    are none yet: what is computed must not depend on them there.

    Arguments
    ---------
    x : torch.Tensor
        The values.

    Returns
    -------
    bool
        Whether to look.

    Example
    -------
    >>> on_host(torch.ones(2))
    True
    """
    return x.device.type == "cpu" and not is_exporting()


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """A block whose products in float32 are in float32.

    Autocast makes them in half precision, and TensorFloat-32, which SpeechBrain
    turns on, in little more on GPUs that have it.

    Arguments
    ---------
    device : torch.device
        Where the block computes.

    Example
    -------
    >>> x = torch.ones(2, 2)
    >>> with torch.autocast("cpu"), full_precision(x.device):
    ...     (x @ x).dtype
    torch.float32
    """
    if is_exporting():  # nothing is computed yet
        yield
        return
    products = torch.backends.cuda.matmul
    fast = device.type == "cuda" and (
        # Where the newer switch was used, to read the older one may fail.
        products.fp32_precision == "tf32"
        if hasattr(products, "fp32_precision")
        else products.allow_tf32
    )
    with torch.autocast(device.type, enabled=False):
        if not fast:
            yield
            return
        products.allow_tf32 = False
        try:
            yield
        finally:
            products.allow_tf32 = True


def widest(device: torch.device) -> torch.dtype:
    """The most precise real type of a device.

    Arguments
    ---------
    device : torch.device
        The device.

    Returns
    -------
    torch.dtype
        float64, which the GPUs of Macs do not have: float32 there.
    """
    return torch.float32 if device.type == "mps" else torch.float64


def valid_mask(
    lengths: Tensor, size: int, device: torch.device | None = None
) -> Tensor:
    """Which samples, or frames, of each item are not padding.

    Arguments
    ---------
    lengths : torch.Tensor
        Length of each item [B].
    size : int
        Length of the padded batch.
    device : torch.device
        Where it is wanted; that of the lengths by default.

    Returns
    -------
    torch.Tensor
        True where there is no padding [B, size].

    Raises
    ------
    UserError
        If the lengths are no tensor [B].

    Example
    -------
    >>> valid_mask(torch.tensor([2, 1]), 2)
    tensor([[ True,  True],
            [ True, False]])
    """
    check_tensor("lengths", lengths, "real", batch=None)
    lengths = lengths.to(device=device, non_blocking=True)
    return torch.arange(size, device=lengths.device) < lengths.view(-1, 1)


def loud_bins(magnitudes: Tensor, threshold_db: float = 40.0) -> Tensor:
    """Which bins are not far below the loudest (Hershey et al., 2016).

    Arguments
    ---------
    magnitudes : torch.Tensor
        Magnitudes of the bins of a mixture [B, N].
    threshold_db : float
        How far below the loudest bin they may be, in dB.

    Returns
    -------
    torch.Tensor
        1 for these bins, 0 for others and in silence [B, N].

    Example
    -------
    >>> loud_bins(torch.tensor([[1.0, 0.02, 0.005]]))
    tensor([[1., 1., 0.]])
    """
    loudest = magnitudes.amax(1, keepdim=True)
    threshold = loudest * 10 ** (-threshold_db / 20)
    return (magnitudes > threshold).to(magnitudes.dtype)


def relative_magnitudes(
    spectrum: Tensor, num_frames: Tensor | None = None
) -> Tensor:
    """Magnitudes of a mixture relative to its level, their root mean square.

    Who sees these alone does not see how loud a mixture is, which makes
    separation scale-equivariant.

    Arguments
    ---------
    spectrum : torch.Tensor
        Complex spectrum of the mixture [B, F, T].
    num_frames : torch.Tensor
        Number of frames of each item that are not padding [B]; all by default.

    Returns
    -------
    torch.Tensor
        Magnitudes [B, T, F]; 0 in silence and in padded frames.

    Raises
    ------
    UserError
        If an argument has another shape.

    Example
    -------
    >>> spectrum = torch.tensor([[[3.0j, 4.0, 9.0]]])
    >>> relative_magnitudes(spectrum, torch.tensor([2])).square().flatten()
    tensor([0.7200, 1.2800, 0.0000])
    """
    check_tensor(
        "spectrum",
        spectrum,
        "real or complex",
        batch=None,
        bins=None,
        frames=None,
    )
    magnitudes = spectrum.abs().transpose(1, 2)  # [B, T, F]
    frames: int | Tensor = magnitudes.shape[1]
    if num_frames is not None:
        check_tensor("num_frames", num_frames, "real", batch=len(spectrum))
        # From the CPU, this does not wait for the device.
        num_frames = num_frames.to(spectrum.device, non_blocking=True)
        valid = valid_mask(num_frames, magnitudes.shape[1])  # [B, T]
        magnitudes = magnitudes * valid.unsqueeze(2)
        frames = num_frames.clamp(1, magnitudes.shape[1]).view(-1, 1, 1)
    peaks = magnitudes.detach().amax((1, 2), keepdim=True)
    magnitudes = magnitudes.mul_(power_to_unity(peaks))
    energy = magnitudes.square().sum((1, 2), keepdim=True)  # [B, 1, 1]
    level = (energy / (frames * magnitudes.shape[2])).sqrt()
    return magnitudes / level.clamp_min(tiny(level))


def flatten_bins(spectra: Tensor) -> Tensor:
    """Puts the bins of spectra or of masks in one row.

    Arguments
    ---------
    spectra : torch.Tensor
        Spectra [..., F, T].

    Returns
    -------
    torch.Tensor
        Their bins [..., N].

    Raises
    ------
    UserError
        If there are no two dimensions.

    Example
    -------
    >>> flatten_bins(torch.tensor([[1, 3], [2, 4]]))
    tensor([1, 2, 3, 4])
    """
    if not isinstance(spectra, Tensor) or spectra.dim() < 2:
        raise UserError(
            f"spectra must be a tensor [..., F, T], got {describe(spectra)}"
        )
    return spectra.transpose(-2, -1).flatten(-2)


def unflatten_masks(masks: Tensor, num_bins: int) -> Tensor:
    """Turns masks of bins in a row into masks of a spectrum.

    Arguments
    ---------
    masks : torch.Tensor
        Masks [B, K, N].
    num_bins : int
        Number of frequency bins F.

    Returns
    -------
    torch.Tensor
        Masks [K, B, F, T].

    Raises
    ------
    UserError
        If the masks are not those of whole frames.

    Example
    -------
    >>> unflatten_masks(torch.tensor([[[1, 2, 3, 4]]]), num_bins=2)
    tensor([[[[1, 3],
              [2, 4]]]])
    """
    check_tensor("masks", masks, "real", batch=None, talkers=None, bins=None)
    if not isinstance(num_bins, int) or (
        num_bins < 1 or masks.shape[2] % num_bins
    ):
        raise UserError(
            f"num_bins must divide the {masks.shape[2]} bins of masks, got "
            f"{describe(num_bins)}"
        )
    return masks.unflatten(2, (-1, num_bins)).permute(1, 0, 3, 2)
