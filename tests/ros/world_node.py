"""``pose_node`` in a process of its own, whose networks know the truth: that of a JSON file.

The file, named by ``$WORLD_FILE``, is read again whenever it changes: truth (name and 4x4 of each
object), distortion, delay_s of a network's run, rgbd.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import rclpy
from fakes import World

from heatnet_ros.files import write_json
from heatnet_ros.ros.node import PoseNode
from heatnet_ros.types import Distortion


def write_world(path: Path, world: World, delay_s: float = 0.0, rgbd: bool = True) -> None:
    truth = [[name, T.tolist()] for name, T in world.truth]
    lens = [world.distortion.model, list(world.distortion.coefficients)]
    write_json(path, {"truth": truth, "distortion": lens, "delay_s": delay_s, "rgbd": rgbd})


class FollowedWorld(World):
    """A world that is what the file says at the moment it is looked at."""

    def __init__(self, path: Path) -> None:
        self._path, self._read_ns, self.delay_s = path, 0, 0.0
        super().__init__()
        self.read()

    def read(self) -> dict:
        changed_ns = self._path.stat().st_mtime_ns
        content = json.loads(self._path.read_text())
        if changed_ns != self._read_ns:
            self._read_ns = changed_ns
            self.truth = [(name, np.array(T)) for name, T in content["truth"]]
            model, coefficients = content["distortion"]
            self.distortion = Distortion(model, tuple(coefficients))
            self.delay_s = content["delay_s"]
        return content

    def pipeline(self, config=None, rgbd=True):
        pipeline = super().pipeline(config, rgbd)
        for stage, delayed in ((pipeline._detector, False), (pipeline._estimator, True)):
            stage.engine.answer = self._reading(stage.engine.answer, delayed)
        return pipeline

    def _reading(self, answer, delayed):
        def read_then_answer(tensors):
            self.read()
            time.sleep(self.delay_s if delayed else 0.0)
            return answer(tensors)

        return read_then_answer


def main() -> None:
    world = FollowedWorld(Path(os.environ["WORLD_FILE"]))
    rgbd = world.read()["rgbd"]
    rclpy.init()
    node = PoseNode(lambda config: world.pipeline(config, rgbd))
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
