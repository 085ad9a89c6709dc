"""What the pipeline says along films whose truth is known, stored once for many evaluations.

Each film lays several tables. ``static``: the camera stands still, another place for each table.
``sway``: it swings sideways by 6 cm and rolls by 10 degrees, once in two seconds. ``orbit``: it
flies round the table, as in the demo.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heatnet_ros.bench.recording import RATE_HZ
from heatnet_ros.files import writing_whole
from heatnet_ros.geometry import se3
from heatnet_ros.pipeline import Pipeline
from heatnet_ros.progress import Progress
from heatnet_ros.rendering.demo_camera import SIZE_WH, K
from heatnet_ros.rendering.orbit import Film, orbit_camera
from heatnet_ros.types import FloatArray, Frame, PoseEstimate

MOTIONS = ("static", "sway", "orbit")
SWAY_M, ROLL_RAD, SWAY_HZ = 0.06, np.radians(10), 0.5
PLACE_S = 7.3  # from one table's place on the orbit to the next one's


@dataclass(frozen=True, eq=False)
class Seen:
    """A published pose and what is true. frame counts within a table of a film."""

    motion: str
    seed: int
    table: int
    frame: int
    pose: PoseEstimate
    truth: FloatArray

    @property
    def run(self) -> tuple[object, ...]:
        """What one filter follows."""
        return self.motion, self.seed, self.table, self.pose.object_id, self.pose.instance

    @property
    def stamp_ns(self) -> int:
        """The frame's stamp."""
        return round(self.frame * 1e9 / RATE_HZ)


def camera_path(motion: str, frames: int, rate_hz: float = RATE_HZ) -> object:
    """T_world_camera as a function of the film's time."""

    def camera(time_s: float) -> FloatArray:
        table = round(time_s * rate_hz) // frames
        if motion == "orbit":
            return orbit_camera(time_s + table * PLACE_S)
        T = orbit_camera(table * PLACE_S)
        if motion == "static":
            return T
        phase = 2 * np.pi * SWAY_HZ * time_s
        roll = se3.exp_so3(np.array([0.0, 0.0, ROLL_RAD * np.sin(phase)]))
        return T @ se3.make_transform(roll, np.array([SWAY_M * np.sin(phase), 0, 0]))

    return camera


def forget_calibration(pipeline: Pipeline) -> None:
    """Poses without the model's ``covariance_scale``: ``load`` applies the one of its day."""
    estimator = pipeline._estimator
    estimator.manifest = dataclasses.replace(estimator.manifest, covariance_scale={})


def record(
    pipeline: Pipeline, motion: str, seed: int, tables: int, frames: int, objects: int = 3
) -> list[Seen]:
    """Run the pipeline over one film; poses of objects that cannot be seen are left out."""
    seen: list[Seen] = []
    progress = Progress(f"{motion} film {seed}", tables * frames)
    with Film(
        pipeline.library, SIZE_WH, K, seed=seed, rate_hz=RATE_HZ, objects_per_scene=objects,
        frames_per_scene=frames, camera=camera_path(motion, frames),
    ) as film:  # fmt: skip
        for i in range(tables * frames):
            table, frame = divmod(i, frames)
            if frame == 0:
                pipeline.reset()
            shown = film.render(i)
            stamp_ns = round(frame * 1e9 / RATE_HZ)
            result = pipeline.run(Frame(shown.rgb, K, shown.depth_m, stamp_ns=stamp_ns))
            for pose in result.poses:
                truth = shown.poses_true.get(pose.object_id)
                if truth is not None:
                    seen.append(Seen(motion, seed, table, frame, pose, truth))
            progress.step(f"{len(result.poses)} poses")
    return seen


def save(path: Path, seen: list[Seen]) -> None:
    """Write what was seen; the file appears whole or not at all."""
    none = np.full((6, 6), np.nan)
    arrays = {
        "motion": np.array([s.motion for s in seen]),
        "object": np.array([s.pose.object_id for s in seen]),
        "number": np.array(
            [(s.seed, s.table, s.frame, s.pose.instance) for s in seen], np.int64
        ).reshape(-1, 4),
        "score": np.array([s.pose.score for s in seen]),
        "T": np.array([s.pose.T_camera_object for s in seen]).reshape(-1, 4, 4),
        "truth": np.array([s.truth for s in seen]).reshape(-1, 4, 4),
        "covariance": np.array(
            [none if s.pose.covariance is None else s.pose.covariance for s in seen]
        ).reshape(-1, 6, 6),
    }
    with writing_whole(path) as file:
        np.savez(file, **arrays)


def load(path: Path, scales: Mapping[str, float]) -> list[Seen]:
    """Read what ``save`` wrote. scales: the model's ``covariance_scale``."""
    with np.load(path, allow_pickle=False) as file:
        stored = {key: file[key] for key in file.files}
    seen = []
    for i, (seed, table, frame, instance) in enumerate(stored["number"].tolist()):
        C = stored["covariance"][i] * scales.get(str(stored["object"][i]), 1.0)
        pose = PoseEstimate(
            str(stored["object"][i]), stored["T"][i], float(stored["score"][i]), 1.0, 0.0, "film",
            instance=instance, covariance=C if np.isfinite(C).all() else None,
        )  # fmt: skip
        seen.append(Seen(str(stored["motion"][i]), seed, table, frame, pose, stored["truth"][i]))
    return seen
