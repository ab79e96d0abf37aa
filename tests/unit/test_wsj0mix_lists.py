"""Tests of reading mixture lists."""

import dataclasses

import pytest

from speechbrain_kmdanet.dataio.wsj0mix import MixtureEntry, read_mixture_list
from speechbrain_kmdanet.errors import UserError


@pytest.fixture
def write_list(tmp_path):
    def write(text):
        path = tmp_path / "mix_2_spk_tr.txt"
        path.write_bytes(text.encode())
        return path

    return write


def test_reads_entries(write_list):
    path = write_list(
        "a/x.wav 1.5 b/y.wav -1.5\n\n  c/z.flac 0 a/x.wav 2e0\r\n"
    )
    first, second = read_mixture_list(path)
    assert first == MixtureEntry(("a/x.wav", "b/y.wav"), (1.5, -1.5))
    assert second.paths == ("c/z.flac", "a/x.wav")
    assert second.snrs == (0.0, 2.0)
    assert (first.line, second.line) == (1, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.snrs = ()


def test_reads_three_speakers_and_a_byte_order_mark(write_list):
    path = write_list("\ufeffx.wav 1 y.wav 0.0 z.wav -1")
    (entry,) = read_mixture_list(path, num_spks=3)
    assert entry.paths[0] == "x.wav"
    assert entry.name == "x_1_y_0_z_-1"


@pytest.mark.parametrize(
    "snr, text",
    [  # as MATLAB's num2str
        (1.9857, "1.9857"),
        (-0.91587, "-0.91587"),
        (0.00658, "0.00658"),
        (-0.0, "0"),
        (2.50000, "2.5"),
        (1.23456789, "1.2346"),
        (12.3456789, "12.3457"),
        (-123.456789, "-123.4568"),
        (10, "10"),
        (0.00001234, "1.234e-05"),
    ],
)
def test_names_follow_matlab(snr, text):
    entry = MixtureEntry(("si_tr_s/01t/01to030v.wav", "y.b.wav"), (snr, 1.0))
    assert entry.name == f"01to030v_{text}_y.b_1"


@pytest.mark.parametrize(
    "text, message",
    [
        ("x.wav 1 y.wav", "line 1: expected pairs .* got 3 fields"),
        ("x.wav 1 y.wav -1\nx.wav one y.wav 1", "line 2: .*SNR.*'one'"),
        ("x.wav nan y.wav 1", "line 1: .*finite.*'nan'"),
        ("x.wav 1 y.wav inf", "line 1: .*finite.*'inf'"),
        (
            "x.wav 1 y.wav -1\nx.wav 1 y.wav 0 z.wav -1",
            "line 2: expected 2 recordings .* got 3",
        ),
        (
            "x.wav 1 y.wav -1\n\na/x.wav 1.0 b/y.wav -1.0",
            "line 3: .*x_1_y_-1.wav a second time, after line 1",
        ),
        ("\n \n", "is empty"),
    ],
)
def test_refuses_malformed_lists(write_list, text, message):
    path = write_list(text)
    with pytest.raises(UserError, match=message) as error:
        read_mixture_list(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_refuses_another_number_of_speakers(write_list):
    with pytest.raises(UserError, match="expected 3 recordings .* got 2"):
        read_mixture_list(write_list("x.wav 1 y.wav -1"), num_spks=3)


def test_names_a_missing_list(tmp_path):
    with pytest.raises(UserError, match="mix_2_spk_xx.txt.*give"):
        read_mixture_list(tmp_path / "mix_2_spk_xx.txt")
