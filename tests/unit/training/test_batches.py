"""Batches are functions of their number: where a stream starts and who makes it do not matter."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")

from heatnet_ros.training.batches import (  # noqa: E402
    NumberedBatches,
    Position,
    load_batches,
    pick_samples,
)

pytestmark = pytest.mark.train


def make(picks, rng, seen):
    return torch.from_numpy(picks), torch.from_numpy(rng.random(len(picks))), seen


def first(count: int, position: Position, workers: int = 0, seed: int = 5):
    stream = NumberedBatches(make, 10, 4, seed, position)
    return list(itertools.islice(iter(load_batches(stream, workers, pin=False)), count))


def same(a, b) -> bool:
    return all(
        torch.equal(x[0], y[0]) and torch.equal(x[1], y[1]) and x[2] == y[2]
        for x, y in zip(a, b, strict=True)
    )


def test_every_pass_holds_each_sample_once_in_a_new_order():
    picks = pick_samples(10, 3, 0, 30).reshape(3, 10)
    assert (np.sort(picks, axis=1) == np.arange(10)).all()
    assert not (picks[0] == picks[1]).all()
    np.testing.assert_array_equal(pick_samples(10, 3, 7, 11), picks.ravel()[7:18])


def test_a_stream_continues_anywhere():
    whole = first(8, Position())
    assert same(whole[3:], first(5, Position(step=3)))
    assert [seen for _, _, seen in whole] == [0, 4, 8, 12, 16, 20, 24, 28]
    assert not same(whole, first(8, Position(), seed=6))


def test_the_number_of_loader_processes_changes_nothing():
    assert same(first(7, Position(step=2), workers=2), first(7, Position(step=2)))


def test_processes_share_every_batch():
    whole = first(5, Position())
    left, right = (first(5, Position(rank=rank, world=2)) for rank in (0, 1))
    for batch, a, b in zip(whole, left, right, strict=True):
        assert torch.equal(batch[0], torch.cat([a[0], b[0]]))
        assert not torch.equal(a[1], b[1])
