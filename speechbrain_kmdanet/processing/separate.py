"""From masks to waveforms.

Authors
 * The speechbrain_kmdanet developers 2026
"""


def decode_sources(masks, spectrum, decoder, num_samples):
    """Applies masks to the spectrum of a mixture and decodes the sources.

    Arguments
    ---------
    masks : torch.Tensor
        Masks [K, B, F, T].
    spectrum : torch.Tensor
        Spectrum of the mixture [B, F, T].
    decoder : callable
        Turns spectra [K · B, F, T] into waveforms.
    num_samples : int
        Length L of the mixture.

    Returns
    -------
    torch.Tensor
        Sources [B, L, K].

    Example
    -------
    >>> import torch
    >>> from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder
    >>> mixture = torch.randn(2, 1000)
    >>> spectrum = STFTEncoder()(mixture)
    >>> masks = torch.full((3, *spectrum.shape), 1 / 3)
    >>> sources = decode_sources(masks, spectrum, STFTDecoder(), 1000)
    >>> torch.allclose(sources.sum(2), mixture, atol=1e-5)
    True
    """
    masked = (masks * spectrum).flatten(0, 1)
    waveforms = decoder(masked)[:, :num_samples]
    return waveforms.unflatten(0, masks.shape[:2]).permute(1, 2, 0)
