"""Tests of the recurrent layers."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from speechbrain_kmdanet.nnet.recurrent import PaddedBLSTM

NUM_FRAMES = torch.tensor([12, 1, 9])


@pytest.mark.parametrize("num_layers", [1, 2])
def test_batch_equals_single(num_layers):
    blstm = PaddedBLSTM(3, 8, num_layers)
    frames = torch.randn(3, 12, 3)
    batch = blstm(frames, NUM_FRAMES)
    for item, length in enumerate(NUM_FRAMES):
        alone = blstm(frames[item : item + 1, :length])
        torch.testing.assert_close(batch[item, :length], alone[0])
        assert (batch[item, length:] == 0).all()
    # the longest item may have padding too
    assert blstm(frames[1:], NUM_FRAMES[1:]).shape == (2, 12, 8)


def test_it_is_an_lstm():
    blstm = PaddedBLSTM(3, 8, num_layers=2)
    lstm = torch.nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True)
    lstm.load_state_dict(blstm.state_dict())
    frames = torch.randn(2, 12, 3)
    assert (blstm(frames) == lstm(frames)[0]).all()


def test_packing_is_that_of_pytorch():
    blstm = PaddedBLSTM(3, 8, num_layers=2)
    frames = torch.randn(6, 12, 3)
    lengths = torch.tensor([7, 12, 1, 7, 12, 3])
    packed = pack_padded_sequence(frames, lengths, True, enforce_sorted=False)
    output = torch.nn.LSTM.forward(blstm, packed)[0]
    expected = pad_packed_sequence(output, batch_first=True)[0]
    assert (blstm(frames, lengths) == expected).all()


def test_dropout_is_between_layers():
    assert PaddedBLSTM(3, 8, 2, dropout=0.4).dropout == 0.4
    assert PaddedBLSTM(3, 8, 1, dropout=0.4).dropout == 0.0


def test_odd_hidden_size():
    with pytest.raises(ValueError, match="hidden_size .*9"):
        PaddedBLSTM(3, hidden_size=9)
