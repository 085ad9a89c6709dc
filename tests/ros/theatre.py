"""A camera in this process and ``pose_node`` in another, which knows what the camera shows."""

from __future__ import annotations

import time
from pathlib import Path

from bench import Bench
from child_environment import child_environment
from world_node import write_world

from heatnet_ros.ros.child import Child
from heatnet_ros.ros.messages import pose_to_matrix, stamp_to_ns

TESTS = Path(__file__).parents[1]


class Theatre:
    """A camera here, and the node in another process, which knows what the camera shows."""

    def __init__(self, folder, world, rgbd=True, **parameters):
        self.bench, self._folder, self._rgbd = Bench(), folder, rgbd
        self._file = folder / "world.json"
        self.show(world)
        arguments = ["-r", f"__ns:={self.bench.namespace}"]
        for name, value in parameters.items():
            arguments += ["-p", f"{name.replace('__', '.')}:={value}"]
        environment = child_environment(TESTS, TESTS / "ros", WORLD_FILE=str(self._file))
        self._child = Child("node", "world_node", arguments, folder / "node.log", environment)

    def __enter__(self):
        self._child.__enter__()
        bench = self.bench
        topics = ["color", "info", "depth"] if self._rgbd else ["color", "info"]
        bench.wait_for(
            lambda: all(bench._publishers[t].get_subscription_count() for t in topics),
            "the node subscribes",
        )
        bench.wait_for(lambda: bench._own.node.count_publishers("pose_node/markers"), "outputs")
        return self

    def __exit__(self, *_):
        self._child.__exit__()
        self.bench.stop()

    def show(self, world, delay_s=0.0):
        """What the camera sees and the networks know, from now on."""
        self.world = world
        self.bench.use_world(world)
        write_world(self._file, world, delay_s, self._rgbd)

    def poses_of(self, count, stamps=None, **changes):
        """(name, 4x4) of all poses of one frame, of this moment if no stamps are given."""
        stamp_ns = next(stamps) if stamps else time.time_ns()
        found = []

        def complete():
            found[:] = [
                (name, pose_to_matrix(message.pose))
                for name, message in list(self.bench.poses)
                if stamp_to_ns(message.header.stamp) == stamp_ns
            ]
            return len(found) == count

        self.bench.publish(stamp_ns, **changes)
        self.bench.wait_for(complete, f"{count} poses of a frame")
        return found
