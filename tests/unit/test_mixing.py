"""Tests of the arithmetic of mixing."""

import numpy as np
import pytest

from speechbrain_kmdanet.dataio.mixing import mix_sources
from speechbrain_kmdanet.errors import UserError


def test_mix_sources_closed_form():
    sources = [np.full(4, 2.0), np.full(2, -3.0)]
    # unit levels after the division, the second 20 dB weaker
    mixture, scaled = mix_sources(sources, [0, -20], [4.0, 9.0], "max")
    assert np.allclose(scaled, [[0.9] * 4, [-0.09, -0.09, 0, 0]])
    assert np.allclose(mixture, [0.81, 0.81, 0.9, 0.9])
    mixture, scaled = mix_sources(sources, [0, -20], [4.0, 9.0], "min")
    assert np.allclose(scaled, [[0.9] * 2, [-0.09] * 2])
    assert np.allclose(mixture, [0.81] * 2)


def test_mix_sources_refuses_bad_arguments():
    ones = np.ones(3)
    with pytest.raises(UserError, match="mode: .*'mid'"):
        mix_sources([ones], [0], [1], "mid")
    with pytest.raises(UserError, match="got 2, 1, 1"):
        mix_sources([ones, ones], [0], [1])
    with pytest.raises(UserError, match=r"levels: .*\[1, 0\.0\]"):
        mix_sources([ones, ones], [0, 0], [1, 0.0])
    with pytest.raises(UserError, match="silence"):
        mix_sources([0 * ones, 0 * ones], [0, 0], [1, 1])


def test_mix_sources_leaves_its_input_alone():
    sources = [np.ones(3), -np.ones(4)]
    mix_sources(sources, [3, -3], [1, 2], "max")
    assert (sources[0] == 1).all() and (sources[1] == -1).all()
