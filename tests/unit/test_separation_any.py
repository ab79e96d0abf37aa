"""Any batch of mixtures: sources that sum to what was given, or one line."""

import math

import numpy as np
import pytest
import torch
from hypothesis import (
    given,
    settings,
    strategies as st,
)
from tiny_separator import write_separator

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.inference.separation import AttractorSeparation

WINDOW = 128  # samples
NONE = [math.nan, math.inf, -math.inf]
TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
anything = settings(max_examples=150, deadline=None, derandomize=True)
# What is no batch of mixtures
NO_MIXTURES = [
    None,
    "mixture.wav",
    [[0.0] * WINDOW],
    np.zeros((1, WINDOW), np.float32),
    torch.zeros(WINDOW),
    torch.zeros(1, 1, WINDOW),
    torch.zeros(0, WINDOW),
    torch.zeros(1, 0),
    torch.zeros(1, WINDOW, dtype=torch.int16),
    torch.zeros(1, WINDOW, dtype=torch.complex64),
]
NO_NUMBERS = [0, -1, 101, 2.5, math.nan, "2", True, None, [2]]
NO_LENGTHS = [
    [],
    [[1.0]],
    [0.0, 0.0],
    [-1.0, 1.0],
    [1.0, 1.0, 1.0, 1.0],
    [2.0],
    [math.nan],
    "all",
]


@pytest.fixture(scope="module")
def separator(tmp_path_factory):
    folder = write_separator(tmp_path_factory.mktemp("separator"))
    return AttractorSeparation.from_hparams(folder)


@st.composite
def mixtures(draw):
    """Noises of any length, level, offset and type; some samples are odd."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 8 * WINDOW))
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    # Talkers that pause
    period = draw(st.integers(1, shape[1]))
    x = x * ((torch.arange(shape[1]) // period) % 2)
    x = x + draw(st.sampled_from([0.0, 0.1, -3.0]))
    x = x * 10.0 ** draw(st.integers(-44, 37))
    x = x.to(draw(st.sampled_from(TYPES)))
    places = st.tuples(*(st.integers(0, size - 1) for size in shape))
    for place in draw(st.lists(places, max_size=2)):
        x[place] = draw(st.sampled_from([*NONE, 3e38, 0.0]))
    if draw(st.booleans()):  # Not one after another in memory
        x = x.repeat_interleave(2, 1)[:, ::2]
    return x


def assert_one_line(caught, *names):
    message = str(caught.value)
    assert message.startswith(names) and "\n" not in message


@anything
@given(mixtures(), st.integers(1, 5), st.data())
def test_sources_sum_to_the_mixture(separator, mix, num_spks, data):
    shares = st.lists(st.sampled_from([0.3, 0.77, 1.0]), min_size=3)
    lengths = torch.tensor(data.draw(shares)[: len(mix)])
    samples = (lengths.double() * mix.shape[1]).round().long()
    given_mix = mix.clone()
    kept = torch.arange(mix.shape[1]) < samples.unsqueeze(1)
    inside = torch.where(kept, mix.float(), 0.0)
    if samples.min() < WINDOW or not inside.isfinite().all():
        with pytest.raises(UserError) as caught:
            separator.separate_batch(mix, num_spks, lengths)
        assert_one_line(caught, "the mixture has ", "item ")
        return
    try:
        sources = separator.separate_batch(mix, num_spks, lengths)
    except UserError as error:
        # Sources of the loudest mixtures can be louder still.
        assert "it is too loud" in str(error) and inside.abs().max() > 1e37
        return
    assert torch.equal(mix.nan_to_num(), given_mix.nan_to_num())
    assert sources.shape == (*mix.shape, num_spks)
    assert sources.isfinite().all() and (sources[~kept] == 0).all()
    peaks = inside.abs().amax(1, keepdim=True)
    errors = (sources.double().sum(2) - inside).abs()
    # The faintest have few digits.
    assert (errors <= 1e-4 * peaks + 1e-44).all()
    item = data.draw(st.integers(0, len(mix) - 1))
    alone = separator.separate_batch(
        mix[item : item + 1, : samples[item]], num_spks
    )
    errors = (sources[item, : samples[item]] - alone[0]).abs()
    assert (errors <= 1e-3 * peaks[item] + 1e-44).all()


@pytest.mark.parametrize("mix", NO_MIXTURES, ids=range(len(NO_MIXTURES)))
def test_no_mixtures(separator, mix):
    with pytest.raises(UserError) as caught:
        separator.separate_batch(mix)
    assert_one_line(caught, "mix must be ")


@pytest.mark.parametrize("num_spks", NO_NUMBERS)
def test_no_number_of_talkers(separator, num_spks):
    if num_spks is None:  # That of the model
        sources = separator.separate_batch(torch.randn(1, 999), num_spks)
        assert sources.shape == (1, 999, 2)
        return
    with pytest.raises(UserError) as caught:
        separator.separate_batch(torch.randn(1, 9999), num_spks)
    assert_one_line(caught, "num_spks")


@pytest.mark.parametrize("lengths", NO_LENGTHS)
def test_no_lengths(separator, lengths):
    with pytest.raises(UserError) as caught:
        separator.separate_batch(torch.randn(2, 999), lengths=lengths)
    assert_one_line(caught, "lengths must be ")
