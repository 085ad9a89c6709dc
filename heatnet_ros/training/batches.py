"""Batches as a function of their number, so that a run continues with exactly the next one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

_ORDER, _AUGMENT = 0, 1  # two independent streams of random numbers from one seed

# (indices of samples, random generator, samples seen before) -> batch
MakeBatch = Callable[[NDArray[np.int64], np.random.Generator, int], Any]


@dataclass(frozen=True)
class Position:
    """The next step of a run, and this process's share of every step."""

    step: int = 0
    rank: int = 0
    world: int = 1


def pick_samples(size: int, seed: int, start: int, count: int) -> NDArray[np.int64]:
    """Indices of samples ``start``.. of an endless stream over ``size`` samples.

    Every pass holds each sample once, in an order of its own.
    """
    picks: list[NDArray[np.int64]] = []
    while count > 0:
        epoch, offset = divmod(start, size)
        picks.append(_order(size, seed, epoch)[offset : offset + count])
        start, count = start + len(picks[-1]), count - len(picks[-1])
    return np.concatenate(picks)


@lru_cache(maxsize=2)
def _order(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(size)


class NumberedBatches(IterableDataset):
    """Endless batches; number n is ``make``'s for (seed, n, rank) and depends on nothing else.

    However many loader processes there are, and wherever the stream starts, batch n is the same.
    """

    def __init__(
        self, make: MakeBatch, size: int, batch: int, seed: int, position: Position
    ) -> None:
        self.make, self.size, self.batch, self.seed = make, size, batch, seed
        self.position = position

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker:
            cv2.setNumThreads(0)  # one thread each, as they are several
        rank, share = self.position.rank, self.batch // self.position.world
        # the loader takes from its workers in turn: worker w makes numbers w, w + W, ...
        for number in itertools.count(self.position.step + first, stride):
            seen = number * self.batch
            picks = pick_samples(self.size, self.seed, seen + rank * share, share)
            rng = np.random.default_rng((self.seed, _AUGMENT, number, rank))
            yield self.make(picks, rng, seen)


def load_batches(stream: NumberedBatches, workers: int, pin: bool) -> Iterable[Any]:
    """Batches made ahead by ``workers`` processes (0: by this one); ``pin``: for a fast copy."""
    ahead = {"prefetch_factor": 4} if workers else {}
    return DataLoader(stream, batch_size=None, num_workers=workers, pin_memory=pin, **ahead)
