"""Conversations: how they are drawn, and how tracks are measured on them."""

import math
from collections import Counter

import numpy as np
import pytest
from conversation_lists import Utterance, parse_conversation, speech_times
from conversation_schedule import (
    TOLERANCE,
    Shape,
    draw_conversations,
    list_talkers,
)

from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.utils.conversations import (
    diarisation_error,
    find_activity,
    find_overlaps,
    follow_talkers,
    overlap_si_sdri,
)

RATE = 1000
TALKERS = {
    f"t{i}": {f"tt/t{i}/{j}.wav": 1500 + 137 * i + 411 * j for j in range(9)}
    for i in range(9)
}
SHAPE = Shape(length=300_000, pause=60_000, overlap=(0.1, 0.3))


def draw(num_spks=2, count=3, shape=SHAPE, seed=0, talkers=TALKERS):
    return draw_conversations(talkers, num_spks, count, shape, seed)


@pytest.mark.parametrize("num_spks", [2, 3, 4])
@pytest.mark.parametrize("overlap", [(0.1, 0.3), (0.1, 0.1), (0.3, 0.3)])
def test_conversations_are_what_was_asked_for(num_spks, overlap):
    for talk in draw(num_spks, 3, SHAPE._replace(overlap=overlap)):
        assert len(talk.gains) == num_spks
        # Counted again, millisecond by millisecond
        speakers = np.zeros((num_spks, talk.length), int)
        for start, end, talker, path in talk.utterances:
            assert end - start == TALKERS[talker][path]
            speakers[list(talk.gains).index(talker), start:end] += 1
        # Nobody speaks over themselves, or is silent for too long.
        assert speakers.max() == 1
        for row in speakers:
            silent = np.flatnonzero(np.r_[1, row, 1])
            assert np.diff(silent).max() - 1 <= 60_000
        together = speakers.sum(0)
        share = (together >= 2).sum() / (together >= 1).sum()
        assert talk.overlap == pytest.approx(share, abs=1e-12)
        assert overlap[0] <= talk.drawn <= overlap[1]
        assert abs(share - talk.drawn) <= TOLERANCE
        assert (together >= 1).mean() > 0.7


def test_turns_are_utterances_end_to_end():
    (talk,) = draw(3, 1)
    heard = np.zeros((3, talk.length), bool)
    for start, end, track in talk.turns:
        assert not heard[track, round(1000 * start) : round(1000 * end)].any()
        heard[track, round(1000 * start) : round(1000 * end)] = True
    for start, end, talker, _ in talk.utterances:
        assert heard[list(talk.gains).index(talker), start:end].all()
    assert heard.sum() == sum(x.end - x.start for x in talk.utterances)
    assert len(talk.turns) < len(talk.utterances)
    assert len(talk.rttm().splitlines()) == len(talk.turns)


def test_the_same_seed_draws_the_same_lists():
    texts = [talk.text() for talk in draw()]
    assert texts == [talk.text() for talk in draw()]
    # A larger set begins with the smaller one.
    assert texts == [talk.text() for talk in draw(count=4)][:3]
    others = {talk.text() for talk in draw(seed=1)}
    assert len({*texts}) == 3 and not others & {*texts}


def test_everything_takes_part_before_it_does_again():
    talks = draw(4, 5)
    for first, second in zip(talks[0::2], talks[1::2]):
        assert not {*first.gains} & {*second.gains}
    for talk in talks:
        for talker in talk.gains:
            heard = Counter(dict.fromkeys(TALKERS[talker], 0))
            heard.update(x[3] for x in talk.utterances if x[2] == talker)
            assert max(heard.values()) - min(heard.values()) <= 1


def test_gains_are_those_of_wsj0_mix():
    for num_spks in (2, 3, 4):
        gains = [*draw(num_spks, 1)[0].gains.values()]
        assert gains[1] == -gains[0] and sum(gains) == pytest.approx(0)
        assert 0 < max(map(abs, gains)) <= 2.5


def test_a_list_says_everything():
    for talk in draw():
        text = talk.text()
        again = parse_conversation(text, talk.name)
        assert again == talk and math.isnan(again.drawn)
        assert again.rttm() == talk.rttm()
        assert list(again.gains) == list(talk.gains)


@pytest.mark.parametrize(
    "lines, part",
    [
        ("0 1 a", "line 5: expected 'seconds S'"),
        ("0.0001 1 a a.wav", "line 5: expected 'seconds S'"),
        ("talker c 1.0", "got ['c'] without one"),
        ("2 3 c c.wav", "got ['c'] without one"),
        ("1 3 a a.wav", "a would speak twice at a time"),
        ("8 11 b b.wav", "or beyond the end at 10 s"),
        ("7 6 b b.wav", "b would speak twice at a time, backwards"),
    ],
)
def test_a_malformed_list_is_refused(lines, part):
    good = "seconds 10\ntalker a 1\ntalker b -1\n0 2 a a.wav\n"
    parse_conversation(f"{good}3 4 b b.wav", "talk")
    with pytest.raises(UserError) as refused:
        parse_conversation(f"{good}{lines}\n3 4 b b.wav", "talk")
    assert part in str(refused.value)


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(UserError, match="has 1 talkers .* than num_spks 2"):
        draw(talkers={"t0": TALKERS["t0"]})
    with pytest.raises(UserError, match="give more --minutes"):
        draw(shape=SHAPE._replace(pause=2000))
    with pytest.raises(UserError, match="there is no folder"):
        list_talkers(tmp_path, "tt")


def test_three_at_a_time_are_one_overlap():
    said = [Utterance(i, 10 + i, str(i), "") for i in (0, 4, 6)]
    assert speech_times(said) == (16, 10)


@pytest.fixture
def noise():
    """Sources [L, K] of 3 talkers, 8 s of noise at 0, −20 and −40 dB."""
    sources = np.random.default_rng(0).standard_normal((8 * RATE, 3))
    return sources * [1.0, 0.1, 0.01]


def test_true_sources_are_followed(noise):
    noise[:2000, 1] = noise[6000:, 2] = 0.0
    tracks = noise[:, [2, 0, 1]]
    following = follow_talkers(noise, tracks, RATE)
    assert following.assignment.tolist() == [1, 2, 0]
    assert following.active.tolist() == [80, 60, 60]
    assert following.right.tolist() == [80, 60, 60]
    assert following.share == 1.0
    # The level is nothing to go by.
    assert follow_talkers(9 * noise, 9 * tracks, RATE).share == 1.0


def test_a_track_more_and_a_track_less(noise):
    more = np.insert(noise, 1, 0.0, axis=1)
    following = follow_talkers(noise, more, RATE)
    assert following.assignment.tolist() == [0, 2, 3]
    assert following.share == 1.0
    noise[:4000, 0] = 0.0  # The others have 80 frames each.
    less = noise[:, :2].copy()
    less[:, 1] += noise[:, 2]
    following = follow_talkers(noise, less, RATE)
    assert sorted(following.assignment) == [-1, 0, 1]
    assert following.share == pytest.approx((40 + 80) / (40 + 80 + 80))


def test_time_on_another_track_is_not_right(noise):
    tracks = noise.copy()
    tracks[6000:, :2] = noise[6000:, 1::-1]
    following = follow_talkers(noise, tracks, RATE)
    assert following.assignment.tolist() == [0, 1, 2]
    # Up to the windows at the change
    assert abs(following.right - [60, 60, 80]).max() <= 1


def test_a_louder_leak_is_no_talker():
    shared, own = np.random.default_rng(0).standard_normal((2, 8 * RATE))
    loud, soft = 100 * shared, 0.5 * shared + own
    # The soft talker's own track has more of the loud one, and that one's
    # track has a larger projection on the soft one.
    tracks = np.stack([0.8 * loud + 0.1 * soft, 0.2 * loud + 0.9 * soft], 1)
    following = follow_talkers(np.stack([loud, soft], 1), tracks, RATE)
    assert following.assignment.tolist() == [0, 1]
    assert following.share == 1.0
    projections = soft @ tracks
    assert projections[0] > projections[1]


def test_a_talker_who_is_on_no_track(noise):
    tracks = noise * [1.0, 1.0, 0.0]
    following = follow_talkers(noise, tracks, RATE)
    assert following.right.tolist() == [80, 80, 0]
    assert following.share == pytest.approx(2 / 3)


def test_silence_has_no_talkers(noise):
    following = follow_talkers(0 * noise, noise, RATE)
    assert following.active.tolist() == [0, 0, 0] and following.share == 0.0


def test_blocks_change_nothing(monkeypatch, noise):
    tracks = noise @ np.random.default_rng(1).random((3, 4))
    whole = follow_talkers(noise, tracks, RATE)
    monkeypatch.setattr("speechbrain_kmdanet.utils.conversations.BLOCK", 7)
    for one, other in zip(whole, follow_talkers(noise, tracks, RATE)):
        assert (one == other).all()


def test_the_last_frame_may_be_short():
    sources = np.ones((250, 1))
    assert find_activity(sources, RATE).shape == (3, 1)


@pytest.fixture
def tones():
    """Orthogonal sources [L, 2] of equal energy, 10 s."""
    phase = 2 * np.pi * 50 * np.arange(10 * RATE) / RATE
    return np.stack([np.cos(phase), np.sin(phase)], axis=1)


def leak(tones, amplitude):
    """Tracks that have the other tone, too."""
    return tones + amplitude * tones[:, ::-1]


def test_improvement_in_overlaps_is_weighted_by_length(tones):
    # Together in seconds 0 to 1, 2 to 5 and, too briefly, 6 to 6.4.
    for silent in slice(1000, 2000), slice(5000, 6000), slice(6400, None):
        tones[silent, 1] = 0.0
    tracks = leak(tones, 0.1)  # 20 dB
    tracks[2000:5000] = leak(tones, 0.1**0.5)[2000:5000]  # 10 dB
    tracks[6000:] = tones[6000:, ::-1]
    improvement, seconds = overlap_si_sdri(
        tones, tracks, np.array([0, 1]), RATE
    )
    # The mixture has 0 dB.
    assert improvement == pytest.approx((1 * 20 + 3 * 10) / 4, abs=1e-3)
    assert seconds == pytest.approx(4)


def test_tracks_are_scored_as_they_are_assigned(tones):
    tracks = leak(tones, 0.1)[:, ::-1]
    one, _ = overlap_si_sdri(tones, tracks, np.array([1, 0]), RATE)
    assert one == pytest.approx(20, abs=1e-3)
    other, _ = overlap_si_sdri(tones, tracks, np.array([0, 1]), RATE)
    assert other == pytest.approx(-20, abs=1e-3)


def test_no_track_is_no_improvement_and_a_silent_one_is_bad(tones):
    tracks = leak(tones, 0.1)
    half, _ = overlap_si_sdri(tones, tracks, np.array([0, -1]), RATE)
    assert half == pytest.approx(10, abs=1e-3)
    worst, _ = overlap_si_sdri(tones, 0 * tracks, np.array([0, 1]), RATE)
    assert worst == pytest.approx(-30, abs=1e-3)
    best, _ = overlap_si_sdri(tones, tones, np.array([0, 1]), RATE)
    assert best == pytest.approx(30, abs=1e-3)


def test_a_talker_who_hardly_speaks_in_an_overlap_is_not_scored(tones):
    sources = np.insert(tones, 2, 0.0, axis=1)
    sources[1000:1300, 2] = tones[1000:1300, 0]
    tracks = np.insert(leak(tones, 0.1), 2, 0.0, axis=1)
    tracks[:, 2] = sources[:, 0]
    whole = np.array([0, 1, 2])
    value, _ = overlap_si_sdri(sources, tracks, whole, RATE)
    assert 19 < value < 20.5


def test_without_overlaps_there_is_no_figure(tones):
    tones[:5000, 0] = tones[5000:, 1] = 0.0
    improvement, seconds = overlap_si_sdri(tones, tones, np.array([0, 1]), RATE)
    assert math.isnan(improvement) and seconds == 0.0
    assert find_overlaps(find_activity(tones, RATE)) == []


@pytest.mark.parametrize("pause, seconds", [(0.3, 10.0), (0.4, 9.2)])
def test_short_pauses_interrupt_no_overlap(tones, pause, seconds):
    for start in 3.0, 7.0:
        tones[round(start * RATE) : round((start + pause) * RATE), 0] = 0.0
    tracks = leak(tones, 0.1)
    _, found = overlap_si_sdri(tones, tracks, np.array([0, 1]), RATE)
    assert found == pytest.approx(seconds)


@pytest.mark.parametrize("tracks", [np.ones((9, 2)), np.ones((10, 0))])
def test_tracks_that_do_not_fit_are_refused(tracks):
    for measure in (
        lambda x: follow_talkers(np.ones((10, 2)), x, 10),
        lambda x: overlap_si_sdri(np.ones((10, 2)), x, np.zeros(2, int), 10),
    ):
        with pytest.raises(UserError, match=r"^tracks: expected \[L, J\]"):
            measure(tracks)


TRUTH = [(0.0, 4.0, "a"), (4.0, 6.0, "b"), (5.0, 7.0, "a")]  # 8 s


@pytest.mark.parametrize(
    "found, missed, false_alarm, confusion",
    [
        ([(s, e, {"a": "y", "b": "x"}[t]) for s, e, t in TRUTH], 0, 0, 0),
        ([], 8, 0, 0),
        # One for all: b is confused, and missed beside a.
        ([(0.0, 7.0, "x")], 1, 0, 1),
        # A third one speaks on.
        ([*TRUTH, (6.5, 9.5, "c")], 0, 3, 0),
        # The name of a is another one at first.
        ([(0.0, 2.0, "x"), (2.0, 4.0, "a"), *TRUTH[1:]], 0, 0, 2),
    ],
)
def test_diarisation_error(found, missed, false_alarm, confusion):
    error = diarisation_error(TRUTH, found)
    wanted = (missed, false_alarm, confusion, 8)
    assert error == pytest.approx(wanted)
    assert error.rate == pytest.approx(sum(wanted[:3]) / 8)


def test_a_turn_counts_once_where_it_is_said_twice():
    error = diarisation_error(TRUTH, [*TRUTH, (1.0, 2.0, "a")])
    assert error.rate == 0


def test_diarisation_needs_the_truth():
    with pytest.raises(UserError, match="^reference: expected the turns"):
        diarisation_error([], TRUTH)
