"""Tests of the schedules of the learning rate."""

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_kmdanet.nnet.schedulers import IntervalScheduler


def rates(scheduler, count):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return [scheduler(optimizer)[1] for _ in range(count)]


@pytest.mark.parametrize("steps", [(2, 4), (0, 3), (2, 2), (1, 1), (0, 0)])
@pytest.mark.parametrize("interrupted", [1, 2, 3])
def test_the_rate_is_that_of_the_step(tmp_path, steps, interrupted):
    intervals = [{"steps": n, "lr": lr} for n, lr in zip(steps, (0.3, 0.1))]
    whole = rates(IntervalScheduler(intervals), 5)
    for step, rate in enumerate(whole, 1):
        expected = 1.0 if step < steps[0] else 0.3
        if step >= steps[1] > steps[0]:
            expected = 0.1
        assert rate == expected

    first = IntervalScheduler(intervals)
    assert rates(first, interrupted) == whole[:interrupted]
    Checkpointer(tmp_path, {"scheduler": first}).save_checkpoint()
    second = IntervalScheduler(intervals)
    Checkpointer(tmp_path, {"scheduler": second}).recover_if_possible()
    assert rates(second, 5 - interrupted)[-1:] == whole[interrupted:][-1:]
    assert second.n_steps == 5
