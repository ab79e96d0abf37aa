"""Tests of the encoder and the decoder."""

import pytest
import torch

from speechbrain_kmdanet.processing.separation import decode_sources
from speechbrain_kmdanet.processing.stft import STFTDecoder, STFTEncoder

SETTINGS = [(512, 128), (256, 128), (400, 160), (511, 128), (257, 128), (3, 1)]


@pytest.mark.parametrize("n_fft, hop_length", SETTINGS)
@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 1000])
def test_perfect_reconstruction(n_fft, hop_length, length):
    encoder = STFTEncoder(n_fft, hop_length)
    decoder = STFTDecoder(n_fft, hop_length)
    mixture = torch.randn(2, length, dtype=torch.float64)
    spectrum = encoder(mixture)
    assert spectrum.shape == (2, n_fft // 2 + 1, encoder.num_frames(length))
    decoded = decoder(spectrum)
    assert decoded.shape[1] >= length
    # the window is kept in float32 and is the same on both sides
    torch.testing.assert_close(decoded[:, :length], mixture, rtol=0, atol=1e-12)
    # what follows the signal is the silence that was encoded
    assert decoded[:, length:].abs().max() < 1e-12


def test_a_frame_by_its_definition():
    encoder = STFTEncoder(16, 4)
    mixture = torch.randn(1, 40, dtype=torch.float64)
    spectrum = encoder(mixture)[0]
    times = torch.arange(16)
    window = 0.5 - 0.5 * (2 * torch.pi * times.double() / 16).cos()
    padded = torch.nn.functional.pad(mixture[0], (8, 16))
    for frame in (0, 1, 5, 9):
        segment = padded[4 * frame : 4 * frame + 16] * window
        torch.testing.assert_close(
            spectrum[:, frame],
            torch.fft.rfft(segment),
            rtol=0,
            atol=1e-5,  # of the float32 window
        )


def test_a_tone_has_its_energy_in_its_bin():
    # 1 kHz at 8 kHz is bin 64 of 512; a Hann window has sum 256, so that an
    # amplitude of 1 gives 128 there and half of it in the two bins beside it.
    tone = (2 * torch.pi * 1000 * torch.arange(4000) / 8000).cos()[None]
    levels = STFTEncoder(512, 128)(tone)[0, :, 10].abs()
    expected = torch.zeros(257)
    expected[63:66] = torch.tensor([64.0, 128.0, 64.0])
    torch.testing.assert_close(levels, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("n_fft, hop_length", SETTINGS)
def test_an_item_has_its_frames_alone_and_in_a_batch(n_fft, hop_length):
    encoder = STFTEncoder(n_fft, hop_length)
    lengths = torch.tensor([1, 300, 511, 512, 700])
    mixtures = [torch.randn(int(length)) for length in lengths]
    batch = torch.nn.utils.rnn.pad_sequence(mixtures, batch_first=True)
    spectra = encoder(batch)
    num_frames = encoder.num_frames(lengths)
    for mixture, spectrum, frames in zip(mixtures, spectra, num_frames):
        alone = encoder(mixture[None])[0]
        assert alone.shape[1] == int(frames)
        assert frames == encoder.num_frames(len(mixture))
        torch.testing.assert_close(spectrum[:, :frames], alone)
        # there is nothing to see in the frames of the padding
        assert spectrum[:, frames:].abs().sum() == 0


def test_linearity():
    encoder, decoder = STFTEncoder(64, 16), STFTDecoder(64, 16)
    one, other = torch.randn(2, 3, 200, dtype=torch.float64)
    both = encoder(2 * one - 3 * other)
    torch.testing.assert_close(both, 2 * encoder(one) - 3 * encoder(other))
    torch.testing.assert_close(
        decoder(both)[:, :200], 2 * one - 3 * other, rtol=0, atol=1e-12
    )


def test_sources_of_complementary_masks_add_up_to_the_mixture():
    encoder, decoder = STFTEncoder(64, 16), STFTDecoder(64, 16)
    mixture = torch.randn(2, 333)
    spectrum = encoder(mixture)
    masks = torch.rand(3, *spectrum.shape).softmax(0)
    sources = decode_sources(masks, spectrum, decoder, 333)
    assert sources.shape == (2, 333, 3)
    torch.testing.assert_close(sources.sum(2), mixture, rtol=0, atol=1e-5)
    # source k of item b comes from mask k of item b
    alone = decoder(masks[2, 1:] * spectrum[1:])[0, :333]
    torch.testing.assert_close(sources[1, :, 2], alone)


def test_gradients_pass_through():
    encoder, decoder = STFTEncoder(16, 4), STFTDecoder(16, 4)
    mixture = torch.randn(1, 9, dtype=torch.float64, requires_grad=True)
    decoder(encoder(mixture))[:, :9].square().sum().backward()
    # the identity: the gradient of Σ x² is 2 x
    torch.testing.assert_close(mixture.grad, 2 * mixture.detach())


def test_half_precision_is_transformed_in_float32():
    mixture = torch.randn(2, 500)
    encoder = STFTEncoder()
    assert encoder(mixture.half()).dtype == torch.complex64
    with torch.autocast("cpu", torch.bfloat16):
        assert (encoder(mixture) == STFTEncoder()(mixture)).all()


def test_the_window_follows_the_device_but_is_not_saved():
    encoder = STFTEncoder()
    assert not encoder.state_dict()
    assert encoder.to("meta").window.is_meta


@pytest.mark.parametrize("n_fft", [2, 3, 5, 16, 17, 31])
def test_all_windows_and_hops(n_fft):
    for hop_length in range(1, n_fft // 2 + 1):
        encoder = STFTEncoder(n_fft, hop_length)
        decoder = STFTDecoder(n_fft, hop_length)
        for length in (1, hop_length, n_fft, 2 * n_fft + 1):
            mixture = torch.randn(1, length, dtype=torch.float64)
            spectrum = encoder(mixture)
            assert spectrum.shape[2] == encoder.num_frames(length)
            decoded = decoder(spectrum)[:, :length]
            torch.testing.assert_close(decoded, mixture, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(100,), (2, 100, 1), (2, 0), (0, 100)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match="mixture must be .*of shape"):
        STFTEncoder()(torch.zeros(shape))


@pytest.mark.parametrize("mixture", [[1.0], torch.ones(2, 9).int(), None])
def test_bad_mixtures(mixture):
    with pytest.raises(ValueError, match="mixture must be .*, got"):
        STFTEncoder()(mixture)


@pytest.mark.parametrize(
    "spectrum",
    [None, torch.ones(1, 33, 9), torch.ones(1, 32, 9) * 1j, torch.ones(33, 9)],
)
def test_bad_spectra(spectrum):
    with pytest.raises(ValueError, match="spectrum must be .*bins=33, frames"):
        STFTDecoder(64, 16)(spectrum)


@pytest.mark.parametrize(
    "n_fft, hop_length", [(64.0, 16), ("64", 16), (64, None)]
)
def test_windows_are_integers(n_fft, hop_length):
    name = "hop_length" if n_fft == 64 and hop_length is None else "n_fft"
    for module in (STFTEncoder, STFTDecoder):
        with pytest.raises(ValueError, match=f"^{name} must be an integer"):
            module(n_fft, hop_length)


def test_no_more_samples_than_there_are():
    encoder, decoder = STFTEncoder(64, 16), STFTDecoder(64, 16)
    spectrum = encoder(torch.randn(2, 333))
    masks = torch.ones(3, *spectrum.shape)
    most = decoder(spectrum).shape[1]
    assert decode_sources(masks, spectrum, decoder, most).shape == (2, most, 3)
    for num_samples in (0, -1, most + 1):
        with pytest.raises(ValueError, match=f"num_samples .* 1 to {most}, .*"):
            decode_sources(masks, spectrum, decoder, num_samples)
    for wrong in (None, masks[0], masks[:, :1], masks[..., :-1]):
        with pytest.raises(ValueError, match="^masks must be a non-empty"):
            decode_sources(wrong, spectrum, decoder, 333)


@pytest.mark.parametrize("hop_length", [0, -1, 257])
def test_bad_hops(hop_length):
    for module in (STFTEncoder, STFTDecoder):
        with pytest.raises(ValueError, match=f"hop_length .*{hop_length}"):
            module(512, hop_length)
