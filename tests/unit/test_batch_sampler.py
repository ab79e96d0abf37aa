"""Tests of batches that have one number of speakers each."""

from types import SimpleNamespace

import pytest

from speechbrain_kmdanet.dataio.batch_sampler import MixtureBatchSampler

NUM_SPKS = [2, 3, 2, 2, 3, 2, 2, 3, 3, 2, 2]  # seven of 2, four of 3


def batches(batch_size=2, seed=1, epoch=1, **options):
    dataset = SimpleNamespace(num_spks=NUM_SPKS, seed=seed, epoch=epoch)
    sampler = MixtureBatchSampler(dataset, batch_size, **options)
    drawn = list(sampler)
    assert len(sampler) == len(drawn)
    return drawn


def flat(drawn):
    return [index for batch in drawn for index in batch]


def test_in_order_without_shuffling():
    assert batches(4) == [[0, 2, 3, 5], [6, 9, 10], [1, 4, 7, 8]]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_one_number_of_speakers_in_a_batch(batch_size, drop_last):
    drawn = batches(batch_size, shuffle=True, drop_last=drop_last)
    for batch in drawn:
        assert len({NUM_SPKS[index] for index in batch}) == 1
    seen = flat(drawn)
    assert len(set(seen)) == len(seen)
    if drop_last:
        assert {len(batch) for batch in drawn} == {batch_size}
        wanted = sum(n // batch_size * batch_size for n in (7, 4))
    else:
        wanted = 7 + 4
    assert len(seen) == wanted


def test_the_order_is_that_of_seed_and_epoch():
    first = batches(shuffle=True)
    assert batches(shuffle=True) == first
    for other in (dict(epoch=2), dict(seed=2)):
        assert batches(shuffle=True, **other) != first
    # Mixtures and batches are shuffled: not one number first.
    numbers = [
        tuple(NUM_SPKS[batch[0]] for batch in batches(shuffle=True, epoch=e))
        for e in range(9)
    ]
    assert len(set(numbers)) > 1


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_batches_of_one(world_size):
    together = batches(world_size, shuffle=True, drop_last=True)
    shares = [
        batches(
            1, shuffle=True, drop_last=True, rank=rank, world_size=world_size
        )
        for rank in range(world_size)
    ]
    assert [flat(step) for step in zip(*shares)] == together


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_processes_get_equally_many(world_size):
    shares = [
        batches(2, shuffle=True, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for step in zip(*shares):
        assert len({len(batch) for batch in step}) == 1
        assert len({NUM_SPKS[index] for index in flat(step)}) == 1
    seen = flat(flat(shares))
    assert set(seen) == set(range(11))
    # No more are repeated than are needed.
    assert len(seen) < 11 + 2 * world_size
