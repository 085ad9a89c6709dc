"""Ids as docs/topics.md promises them, over DDS: the node is another process."""

import itertools
import time

import numpy as np
import pytest
from fakes import LIBRARY, World, pose
from theatre import Theatre

from heatnet_ros.ros.messages import stamp_to_ns

FRAME_NS = 33_333_333
ASIDE_M = 1.5 * LIBRARY["wedge"].diameter_m
NEAR, FAR = ("wedge", pose(-0.15, 0, 0.7)), ("wedge", pose(0.15, 0, 0.9))


class Film:
    """Frame by frame: what the camera shows, and which ids come of it."""

    def __init__(self, theatre):
        self._theatre = theatre
        self._stamps = itertools.count(time.time_ns(), FRAME_NS)

    def show(self, *truth):
        """One frame -> z in cm of each pose, by instance."""
        bench, stamp_ns = self._theatre.bench, next(self._stamps)
        self._theatre.show(World(*truth))
        bench.publish(stamp_ns)
        found = {}

        def told():
            for array in list(bench.markers):
                axes = [m for m in array.markers if m.ns == "wedge/axes" and m.action == m.ADD]
                if axes and stamp_to_ns(axes[0].header.stamp) == stamp_ns:
                    found.update({m.id: round(100 * m.pose.position.z) for m in axes})
            return found

        bench.wait_for(told, "the markers of a frame")
        del bench.markers[:]
        return found

    def begin(self):
        """Until both are seen; the ids of the near one and of the far one."""
        bench = self._theatre.bench
        # the first images are lost where the node has not discovered the camera yet
        bench.stream(lambda: bench.markers, "the first markers", stamps=self._stamps)
        for _ in range(100):
            found = self.show(NEAR, FAR)
            if len(found) == 2:
                ids = {z: instance for instance, z in found.items()}
                assert sorted(found) == [0, 1] and sorted(ids) == [70, 90]
                return ids[70], ids[90]
        raise AssertionError("Two wedges were never seen in one frame.")


@pytest.fixture
def film(ros, tmp_path):
    with Theatre(tmp_path, World(NEAR, FAR)) as theatre:
        yield Film(theatre)


def test_two_of_one_class_that_cross_keep_their_ids(film):
    """One passes 20 cm behind the other, which hides it meanwhile."""
    near, far = film.begin()
    for x in np.linspace(-0.15, 0.15, 40):
        found = film.show(("wedge", pose(x, 0, 0.7)), ("wedge", pose(-x, 0, 0.9)))
        assert found in ({near: 70, far: 90}, {near: 70})
    for _ in range(20):
        found = film.show(("wedge", pose(0.15, 0, 0.7)), ("wedge", pose(-0.15, 0, 0.9)))
    assert found == {near: 70, far: 90}


@pytest.mark.parametrize(
    ("frames", "aside_m", "is_new"),
    [(6, 0.0, False), (6, ASIDE_M, True), (40, ASIDE_M, False)],
    ids=["soon, same place", "soon, elsewhere: another one", "later: the free id"],
)
def test_one_that_leaves_and_returns(film, frames, aside_m, is_new):
    near, far = film.begin()
    for _ in range(frames):
        assert film.show(FAR) == {far: 90}
    back = ("wedge", pose(-0.15, -aside_m, 0.7))
    for _ in range(30):
        found = film.show(back, FAR)
        if len(found) == 2:
            break
    assert found == {2 if is_new else near: 70, far: 90}
