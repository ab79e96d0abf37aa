"""Tests of who is who in the windows of a recording, and who speaks when."""

from dataclasses import replace

import numpy as np
import pytest

from speechbrain_kmdanet.inference.tracks import Stretch, assign_tracks
from speechbrain_kmdanet.inference.turns import (
    find_turns,
    format_rttm,
    frame_energies,
)


def say(talkers, voices, spread=0.2, seconds=2.0, seed=0, same=False):
    """Stretches of talkers, those of a window at once; voices vary."""
    rng = np.random.default_rng(seed)
    stretches, before = [], {}
    for window, here in enumerate(talkers):
        numbers = {}
        for number, talker in enumerate(here):
            noise = rng.standard_normal(voices.shape[1])
            vector = voices[talker] + spread * noise / np.sqrt(len(noise))
            numbers[talker] = len(stretches)
            stretches.append(
                Stretch(
                    window,
                    number,
                    3.0 * window,
                    3.0 * window + seconds,
                    vector / np.linalg.norm(vector),
                    1.0,
                    before.get(talker, -1) if same else -1,
                )
            )
        before = numbers
    return stretches


def as_talkers(talkers):
    """Talkers numbered in the order in which they are heard."""
    numbers = {}
    return [
        numbers.setdefault(talker, len(numbers))
        for here in talkers
        for talker in here
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("known", [True, False])
def test_talkers_who_come_and_go(count, known):
    rng = np.random.default_rng(count)
    talkers = [
        rng.permutation(count)[: rng.integers(1, count + 1)].tolist()
        for _ in range(60)
    ]
    said = say(talkers, np.eye(8)[:count])
    assert assign_tracks(said, count if known else None) == as_talkers(talkers)


def test_what_two_windows_hear_is_one():
    # The voice is taken for another's in every second window.
    talkers = [[0], [1], [0], [1], [0], [1]]
    said = say(talkers, np.eye(4))
    assert assign_tracks(said) == as_talkers(talkers)
    linked = [replace(x, same_as=i - 1) for i, x in enumerate(said)]
    assert assign_tracks(linked) == [0] * 6


def test_two_at_a_time_are_two():
    # The same voice twice in a window, as of twins.
    said = say([[0, 0]] * 3, np.eye(4))
    tracks = assign_tracks(said, 2)
    assert [sorted(x) for x in zip(tracks[::2], tracks[1::2])] == [[0, 1]] * 3
    # One after the other in a window they may be one.
    after = [replace(x, start=x.start + 9 * x.talker) for x in said]
    after = [replace(x, end=x.start + 2.0) for x in after]
    assert assign_tracks(after) == [0] * 6


def test_no_more_tracks_than_there_are():
    said = say([[0], [1], [2], [3], [4], [5]], np.eye(8))
    assert set(assign_tracks(said, most=4)) == {0, 1, 2, 3}
    assert set(assign_tracks(said, 2)) == {0, 1}
    assert assign_tracks(said, 1) == [0] * 6
    assert assign_tracks([]) == []


def test_short_and_rare_ones_go_to_the_likest():
    said = say([[0], [1]] * 30, np.eye(4))
    short = replace(said[1], start=200.0, end=200.4)
    assert assign_tracks([*said, short]) == [0, 1] * 30 + [1]
    # A voice that is heard once in an hour is a mistake, unless it is known.
    stranger = replace(
        said[0], start=300.0, end=301.5, voice=np.array([0.3, 0.0, 0.9, 0.3])
    )
    assert assign_tracks([*said, stranger]) == [0, 1] * 30 + [0]
    assert assign_tracks([*said, stranger], 3) == [0, 1] * 30 + [2]
    # Where nobody's voice is known, all is on one track.
    unknown = [replace(x, voice=np.zeros(1)) for x in said]
    assert assign_tracks(unknown) == [0] * 60


def test_a_known_number_is_not_used_up_by_mistakes():
    # Some stretches are like nobody's; that makes one of the two talkers none.
    said = say([[0], [1]] * 30, np.eye(4))
    odd = np.array([-0.5, -0.5, 0.7, 0.0])
    odd = [
        replace(said[0], start=x, end=x + 1.5, voice=odd) for x in (200, 300)
    ]
    tracks = assign_tracks([*said, *odd], 2)
    assert tracks[:60] == [0, 1] * 30


def test_many_stretches():
    rng = np.random.default_rng(0)
    talkers = [[int(x)] for x in rng.integers(0, 3, 700)]
    said = say(talkers, np.eye(8)[:3])
    assert assign_tracks(said) == as_talkers(talkers)


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
