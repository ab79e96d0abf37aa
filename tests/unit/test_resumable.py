"""Tests of trainings that are ended by signals, or by themselves."""

import math
import signal
from functools import cache

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.utils.epoch_loop import EpochCounter
from torch import nn

from speechbrain_kmdanet.errors import Stopped, UserError
from speechbrain_kmdanet.utils.checkpointing import WholeCheckpointer
from speechbrain_kmdanet.utils.resumable import ResumableBrain

EPOCHS, STEPS, VALID = 3, 4, 2
EVENTS = EPOCHS * (STEPS + VALID)
SIGNALS = {signal.SIGTERM: Stopped, signal.SIGINT: KeyboardInterrupt}


class Brain(ResumableBrain):
    """A regression with dropout, to which something happens at some event."""

    def happen(self, stage):
        """What the training does not expect."""

    def compute_forward(self, batch, stage):
        self.happen(stage)
        x = self.modules.net(batch.to(self.device))
        return nn.functional.dropout(x, 0.5, stage == sb.Stage.TRAIN)

    def compute_objectives(self, output, batch, stage):
        return (output - batch).square().mean()

    def on_stage_end(self, stage, stage_loss, epoch=None):
        super().on_stage_end(stage, stage_loss, epoch)
        if stage == sb.Stage.TRAIN:
            self.train_loss = stage_loss
            return
        with open(self.hparams.train_log, "a") as file:
            losses = f"train loss: {self.train_loss} - loss: {stage_loss}"
            file.write(f"epoch: {epoch}, {losses}\n")
        self.save_epoch({"score": -stage_loss, "epoch": epoch}, "score")


def make(folder, **options):
    """A brain and its data, as a new process makes them."""
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    net = nn.Linear(3, 3)
    counter = EpochCounter(EPOCHS)
    data = SaveableDataLoader(torch.randn(4 * STEPS, 3), batch_size=4)
    saver = WholeCheckpointer(
        folder / "save", {"net": net, "counter": counter, "dataloader": data}
    )
    hparams = dict(seed=1, epoch_counter=counter)
    hparams["train_log"] = str(folder / "train_log.txt")
    brain = Brain(
        {"net": net},
        lambda x: torch.optim.Adam(x, lr=0.1),
        hparams,
        {"device": "cpu", "noprogressbar": True, **options},
        saver,
    )
    brain.valid = SaveableDataLoader(torch.randn(4 * VALID, 3), batch_size=4)
    brain.data = data
    return brain


def fit(brain):
    brain.fit(brain.hparams.epoch_counter, brain.data, brain.valid)


def result(folder):
    """Weights of the last checkpoint, and the log."""
    brain = make(folder)
    brain.checkpointer.recover_if_possible()
    weights = brain.modules.net.weight.flatten().tolist()
    return weights, (folder / "train_log.txt").read_text()


@cache
def uninterrupted(path):
    fit(make(path))
    return result(path)


@pytest.fixture
def whole(tmp_path_factory):
    """The end of a training that nothing interrupts."""
    return uninterrupted(tmp_path_factory.getbasetemp() / "uninterrupted")


def happen_at(brain, event, what):
    """Has something happen at an event, counted from 0."""
    events = iter(range(event + 1))

    def happen(stage):
        if next(events, None) == event:
            what()

    brain.happen = happen


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_at_any_moment(tmp_path, whole, number):
    for event in range(EVENTS):
        folder = tmp_path / str(event)
        brain = make(folder)
        happen_at(brain, event, lambda: signal.raise_signal(number))
        with pytest.raises(SIGNALS[number]) as end:
            fit(brain)
        if number == signal.SIGTERM:
            assert end.value.code == 143
        # The step was made, and nothing is made again.
        epoch, step = divmod(event, STEPS + VALID)
        steps = epoch * STEPS + min(step + 1, STEPS)
        brain = make(folder)
        brain.checkpointer.add_recoverable("brain", brain)
        brain.checkpointer.recover_if_possible()
        assert brain.optimizer_step == steps
        fit(make(folder))
        assert result(folder) == whole
    # Signals do again what they did.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_every_step_can_be_the_last(tmp_path, whole):
    # As a scheduler that has little time: a signal a step
    for _ in range(EPOCHS * STEPS):
        brain = make(tmp_path / "run")
        brain.happen = lambda stage: (
            stage == sb.Stage.TRAIN and signal.raise_signal(signal.SIGTERM)
        )
        with pytest.raises(Stopped):
            fit(brain)
    fit(make(tmp_path / "run"))
    assert result(tmp_path / "run") == whole


def test_a_second_signal_does_not_wait(tmp_path, whole):
    brain = make(tmp_path / "run")
    ended = []

    def twice():
        signal.raise_signal(signal.SIGTERM)
        ended.append("first")
        signal.raise_signal(signal.SIGINT)
        ended.append("second")

    happen_at(brain, STEPS + VALID + 1, twice)
    with pytest.raises(KeyboardInterrupt):
        fit(brain)
    assert ended == ["first"]
    fit(make(tmp_path / "run"))
    assert result(tmp_path / "run") == whole


def test_a_signal_waits_for_gradients_that_are_accumulated(tmp_path):
    options = dict(grad_accumulation_factor=2)
    fit(make(tmp_path / "whole", **options))
    brain = make(tmp_path / "run", **options)
    happen_at(brain, 0, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Stopped):
        fit(brain)
    assert brain.step == 2 and brain.optimizer_step == 1
    fit(make(tmp_path / "run", **options))
    assert result(tmp_path / "run") == result(tmp_path / "whole")


def spoil_weights(brain):
    brain.modules.net.weight.data[0, 0] = math.nan


def spoil_optimizer(brain):
    (state, *_) = brain.optimizer.state.values()
    state["exp_avg_sq"][0] = math.inf


def spoil_loss(brain):
    brain.modules.net.bias.data[0] = 1e30


@pytest.mark.parametrize("spoil", [spoil_weights, spoil_optimizer, spoil_loss])
@pytest.mark.parametrize("event", [0, 3, STEPS, STEPS + VALID - 1])
def test_what_diverges_is_not_saved(tmp_path, whole, spoil, event):
    folder = tmp_path / "run"
    brain = make(folder)
    event += STEPS + VALID  # in the second epoch
    happen_at(brain, event, lambda: spoil(brain))
    with pytest.raises(UserError, match="diverged in epoch 2, .*: lower lr"):
        fit(brain)
    saver = make(folder).checkpointer
    assert [x.meta["epoch"] for x in saver.list_checkpoints()] == [1]
    assert saver.recover_if_possible()
    fit(make(folder))
    assert result(folder) == whole


@pytest.mark.parametrize("spoilt", [True, False])
def test_an_error_by_what_diverged(tmp_path, spoilt):
    brain = make(tmp_path / "run")

    def refuse():
        if spoilt:
            spoil_weights(brain)
        raise UserError("x must be finite, got nan")

    happen_at(brain, STEPS, refuse)
    expected = "diverged in epoch 1" if spoilt else "x must be finite"
    with pytest.raises(UserError, match=expected):
        fit(brain)


def test_nothing_that_diverged_is_saved_in_an_epoch(tmp_path):
    brain = make(
        tmp_path / "run", ckpt_interval_steps=1, ckpt_interval_minutes=0
    )
    happen_at(brain, 2, lambda: spoil_optimizer(brain))
    with pytest.raises(UserError, match="diverged in epoch 1"):
        fit(brain)
    (saved,) = make(tmp_path / "run").checkpointer.list_checkpoints()
    assert "counter: 2" in (saved.path / "brain.ckpt").read_text().replace(
        "optimizer_step", "counter"
    )


@pytest.mark.parametrize("bad_losses", [1, 2])
def test_patience_with_what_skips_steps(tmp_path, bad_losses):
    options = dict(skip_nonfinite_grads=True, nonfinite_patience=1)
    brain = make(tmp_path, **options)
    factors = iter([math.nan] * bad_losses)

    def objective(output, batch, stage):
        loss = Brain.compute_objectives(brain, output, batch, stage)
        return loss * next(factors, 1.0)

    brain.compute_objectives = objective
    if bad_losses == 1:
        fit(brain)
        return
    with pytest.raises(UserError, match="diverged in epoch 1"):
        fit(brain)


def test_the_best_the_last_and_the_one_before_are_kept(tmp_path):
    brain = make(tmp_path)
    brain.on_fit_start()
    kept = []
    for epoch, score in enumerate([3, 5, 1, 2, 4], start=1):
        brain.save_epoch({"score": score, "epoch": epoch}, "score")
        found = brain.checkpointer.list_checkpoints()
        kept.append(sorted(x.meta["epoch"] for x in found))
    assert kept == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 4, 5]]


def test_the_log_ends_where_the_training_goes_on(tmp_path):
    fit(make(tmp_path / "run"))
    log = tmp_path / "run" / "train_log.txt"
    whole = log.read_text()
    elsewhere = tmp_path / "log.txt"
    log.rename(elsewhere)
    elsewhere.write_text(f"{whole}epoch: 4, loss: 1\nepoch: 12")
    log.symlink_to(elsewhere)
    fit(make(tmp_path / "run"))
    assert log.read_text() == whole and not log.is_symlink()
    assert elsewhere.read_text() != whole
