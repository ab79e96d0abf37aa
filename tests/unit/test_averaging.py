"""Tests of averages of weights."""

import copy

import pytest
import torch
from torch import nn

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.averaging import average_weights


def make_modules():
    return nn.ModuleDict(
        {"masknet": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))}
    )


def change(modules):
    with torch.no_grad():
        for parameter in modules.parameters():
            parameter.add_(torch.randn_like(parameter))
    modules["masknet"][1].running_mean.add_(1.0)


def test_equals_the_recursion():
    modules = make_modules()
    average = average_weights(modules, 0.6)
    expected = None
    for step in range(9):
        change(modules)
        weights = copy.deepcopy(list(modules.parameters()))
        decay = min(0.6, (1 + step) / (10 + step))
        if expected is None:
            expected = weights
        else:
            expected = [
                decay * a + (1 - decay) * b for a, b in zip(expected, weights)
            ]
        average.update_parameters(modules)
    for a, b in zip(average.module.parameters(), expected):
        torch.testing.assert_close(a, b)
    statistics = (
        x["masknet"][1].running_mean for x in (average.module, modules)
    )
    assert torch.equal(*statistics)


def test_goes_on_from_its_state():
    modules = make_modules()
    average = average_weights(modules, 0.9)
    other = average_weights(make_modules(), 0.9)
    for _ in range(3):
        change(modules)
        average.update_parameters(modules)
    other.load_state_dict(average.state_dict())
    change(modules)
    for it in (average, other):
        it.update_parameters(modules)
    for a, b in zip(average.parameters(), other.parameters()):
        assert torch.equal(a, b)
    assert not average.module.training


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_refuses_other_decays(decay):
    with pytest.raises(UserError, match="ema_decay must be in"):
        average_weights(make_modules(), decay)
