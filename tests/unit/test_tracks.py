"""Tests of who is who in the windows of a recording, and who speaks when."""

import numpy as np
import pytest

from speechbrain_kmdanet.inference.tracks import WindowTalkers, assign_tracks
from speechbrain_kmdanet.inference.turns import (
    find_turns,
    format_rttm,
    frame_energies,
)


def make_windows(talkers, voices, spread=0.2, agree=(), seconds=5.0, seed=0):
    """Windows of talkers, whose voices vary; some neighbours agree."""
    rng = np.random.default_rng(seed)
    windows, before = [], []
    for index, here in enumerate(talkers):
        vectors = voices[here] + spread * rng.standard_normal(
            (len(here), voices.shape[1])
        ) / np.sqrt(voices.shape[1])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        agreement = np.zeros((len(before), len(here)))
        if index in agree:
            agreement = np.equal.outer(before, here).astype(float)
        count = len(here)
        windows.append(
            WindowTalkers(
                vectors, np.full(count, seconds), agreement, np.ones(count)
            )
        )
        before = here
    return windows


def as_talkers(talkers):
    """Talkers numbered in the order in which they are heard."""
    numbers = {}
    return [
        [numbers.setdefault(talker, len(numbers)) for talker in here]
        for here in talkers
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("known", [True, False])
def test_talkers_who_come_and_go(count, known):
    rng = np.random.default_rng(count)
    voices = np.eye(8)[:count]
    talkers = [
        rng.permutation(count)[: rng.integers(1, count + 1)].tolist()
        for _ in range(60)
    ]
    windows = make_windows(talkers, voices)
    found = assign_tracks(windows, count if known else None)
    assert found == as_talkers(talkers)


def test_agreement_holds_against_voices():
    # One talker, whose voice the network takes for another's half of the time.
    talkers = [[0], [1], [0], [1], [0], [1]]
    windows = make_windows(talkers, np.eye(4), agree=())
    assert assign_tracks(windows) == talkers
    agreeing = [
        WindowTalkers(x.voices, x.seconds, np.ones((min(i, 1), 1)), x.peaks)
        for i, x in enumerate(windows)
    ]
    assert assign_tracks(agreeing) == [[0]] * 6


def test_two_of_one_window_are_two():
    # The same voice twice in a window, as of twins.
    windows = make_windows([[0, 0]] * 3, np.eye(4), agree=())
    for tracks in assign_tracks(windows, 2):
        assert sorted(tracks) == [0, 1]


def test_no_more_tracks_than_there_are():
    windows = make_windows([[0], [1], [2], [3], [4], [5]], np.eye(8))
    assert {max(x) for x in assign_tracks(windows, most=4)} == {0, 1, 2, 3}
    assert {max(x) for x in assign_tracks(windows, 2)} == {0, 1}
    assert assign_tracks(windows, 1) == [[0]] * 6


def test_short_ones_go_to_the_likest():
    windows = make_windows([[0], [1], [0]], np.eye(4))
    vague = WindowTalkers(
        windows[1].voices, np.array([0.2]), np.zeros((1, 1)), np.ones(1)
    )
    assert assign_tracks([*windows, vague]) == [[0], [1], [0], [1]]
    # Where nobody is heard at all, all is on one track.
    silent = [
        WindowTalkers(
            np.zeros((1, 1)), np.zeros(1), np.zeros((i, 1)), np.zeros(1)
        )
        for i in (0, 1, 1)
    ]
    assert assign_tracks(silent) == [[0]] * 3


def test_many_windows():
    rng = np.random.default_rng(0)
    talkers = [[int(x)] for x in rng.integers(0, 3, 700)]
    windows = make_windows(talkers, np.eye(8)[:3])
    assert assign_tracks(windows) == as_talkers(talkers)


def test_turns():
    rate, length = 1000, 10000
    signals = np.zeros((length, 2))
    signals[500:3000, 0] = signals[3300:5000, 0] = 1.0  # a short pause within
    signals[4000:9000, 1] = 0.5
    signals[:, 1] += 1e-3 * signals[:, 0]  # a leak is no speech
    turns = find_turns(frame_energies(signals, rate))
    assert turns == [(0.5, 5.0, 0), (4.0, 9.0, 1)]
    lines = format_rttm("a", turns, ["1", "2"]).splitlines()
    assert [line.split()[3:5] + line.split()[7:8] for line in lines] == [
        ["0.500", "4.500", "1"],
        ["4.000", "5.000", "2"],
    ]


@pytest.mark.parametrize("energies", [np.zeros((5, 2)), np.zeros((1, 1))])
def test_nobody_has_no_turns(energies):
    assert find_turns(energies) == []
