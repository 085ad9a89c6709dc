"""Frames to measure on, recorded once: a film of a table scene, or a BOP scene.

Every case runs on the same frames, so that numbers can be compared.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.files import writing_whole
from heatnet_ros.following import enclose
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.predict_inputs import list_bop_inputs
from heatnet_ros.progress import Progress
from heatnet_ros.rendering.demo_camera import SIZE_WH, K
from heatnet_ros.types import Detection, FloatArray, Frame

RATE_HZ = 30.0
DEPTH_STEP_M = 1e-4
# more objects take more table, which is seen from farther away
NEAR_OBJECTS = 3
TRUE_BOX_SCORE = 0.9
_Poses = tuple[tuple[str, FloatArray], ...]


@dataclass(frozen=True, eq=False)
class Target:
    """An object that a frame shows, enough of it in view: its pose (4x4, metres) and its box."""

    object_id: str
    T_camera_object: FloatArray
    bbox_xyxy_px: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Recording:
    """frames: in the order of their stamps. poses: what each shows, (object, T_camera_object)."""

    frames: tuple[Frame, ...]
    poses: tuple[_Poses, ...]
    source: str

    @property
    def size_mb(self) -> float:
        """What its frames take in memory."""
        depths = [f.depth_m.nbytes for f in self.frames if f.depth_m is not None]
        return (sum(f.rgb.nbytes for f in self.frames) + sum(depths)) / 1e6

    @property
    def names(self) -> tuple[str, ...]:
        """The objects that it shows, those of most frames first."""
        names = [name for poses in self.poses for name, _ in poses]
        return tuple(sorted(set(names), key=lambda name: (-names.count(name), name)))

    def choose(self, count: int) -> tuple[str, ...]:
        """The ``count`` objects that most frames show. Raises ConfigError where there are fewer."""
        if len(self.names) < count:
            raise ConfigError(
                f"--objects: {count} were asked for, {self.source} shows {len(self.names)} "
                f"({', '.join(self.names)}). Give fewer, or --frames of a scene with more."
            )
        return self.names[:count]

    def targets(
        self, library: ObjectLibrary, names: Sequence[str]
    ) -> dict[int, tuple[Target, ...]]:
        """Stamp -> what is to be found of these objects, by the rule of ``following.enclose``."""
        found = {}
        for frame, poses in zip(self.frames, self.poses, strict=True):
            boxes = [(name, T, enclose(T, library[name], frame)) for name, T in poses]
            found[frame.stamp_ns] = tuple(
                Target(name, T, box) for name, T, box in boxes if box is not None and name in names
            )
        return found

    def boxes(
        self, library: ObjectLibrary, names: Sequence[str]
    ) -> dict[int, tuple[Detection, ...]]:
        """Stamp -> true boxes of these objects, as a perfect detector gives them."""
        return {
            stamp_ns: detect_truly(targets)
            for stamp_ns, targets in self.targets(library, names).items()
        }


def detect_truly(targets: Sequence[Target]) -> tuple[Detection, ...]:
    """The boxes of a perfect detector."""
    return tuple(Detection(t.object_id, t.bbox_xyxy_px, TRUE_BOX_SCORE) for t in targets)


def record_film(library: ObjectLibrary, objects: int, count: int, seed: int = 0) -> Recording:
    """Film a table with so many objects at 30 Hz. Raises ConfigError without the render extra."""
    try:
        from heatnet_ros.rendering.orbit import Film
    except ImportError as error:
        raise ConfigError(
            "Recording frames needs the render extra: pip install 'heatnet_ros[render]'. Or give "
            "--frames a BOP scene."
        ) from error
    frames, poses = [], []
    progress = Progress("recording frames", count)
    with Film(
        library, SIZE_WH, K, seed=seed, rate_hz=RATE_HZ, objects_per_scene=objects,
        frames_per_scene=count, scale=max(1.0, (objects / NEAR_OBJECTS) ** 0.5),
    ) as film:  # fmt: skip
        for i in range(count):
            shown = film.render(i)
            stamp_ns = round(i * 1e9 / RATE_HZ)
            frames.append(Frame(shown.rgb, K, shown.depth_m, stamp_ns=stamp_ns))
            poses.append(tuple(shown.poses_true.items()))
            progress.step(f"{len(shown.poses_true)} objects")
    source = f"film of {library.name}, {objects} objects, seed {seed}"
    return Recording(tuple(frames), tuple(poses), source)


def read_scene(folder: Path) -> Recording:
    """A BOP scene with ground truth, as if its images came at 30 Hz. Raises DataError."""
    inputs = list_bop_inputs(folder, None)
    if inputs is None or not inputs.has_truth:
        raise DataError(
            f"--frames {folder} is no BOP scene with ground truth. Give a scene's folder, such as "
            "data/lmo/test/000002, or leave it out."
        )
    frames, poses = [], []
    for i, image in enumerate(inputs.images):
        frame = image.load_frame()
        stamp_ns = round(i * 1e9 / RATE_HZ)
        frames.append(Frame(frame.rgb, frame.K, frame.depth_m, frame.distortion, stamp_ns))
        poses.append(tuple((t.object_id, t.T_camera_object) for t in image.truths if t.is_target))
    return Recording(tuple(frames), tuple(poses), str(folder))


def find_recording(out: Path, library: ObjectLibrary, objects: int, count: int, seed: int) -> Path:
    """The file in ``out`` of a film as ``record_film`` makes it, made where it is missing."""
    key = f"{library.keypoints_hash(list(library.objects))} {objects} {count}"
    path = _name(out, f"{key} {seed}" if seed else key)
    if not path.exists():
        save_recording(path, record_film(library, objects, count, seed))
    return path


def find_scene_recording(out: Path, folder: Path) -> Path:
    """The file in ``out`` of a BOP scene, made where it is missing. Raises DataError."""
    path = _name(out, f"{folder.resolve()} targets")
    if not path.exists():
        save_recording(path, read_scene(folder))
    return path


def _name(out: Path, key: str) -> Path:
    return out / f"recording-{hashlib.sha256(key.encode()).hexdigest()[:10]}.npz"


def save_recording(path: Path, recording: Recording) -> None:
    """Write a recording of frames without distortion; the file appears whole or not at all."""
    depths = [frame.depth_m for frame in recording.frames]
    arrays = {
        "rgb": np.stack([frame.rgb for frame in recording.frames]),
        "K": np.stack([frame.K for frame in recording.frames]),
        "stamp_ns": np.array([frame.stamp_ns for frame in recording.frames]),
        "frame": np.array([i for i, poses in enumerate(recording.poses) for _ in poses]),
        "name": np.array([name for poses in recording.poses for name, _ in poses]),
        "T": np.array([T for poses in recording.poses for _, T in poses]).reshape(-1, 4, 4),
        "source": np.array(recording.source),
    }
    if all(depth is not None for depth in depths):
        metres = np.nan_to_num(np.stack([d for d in depths if d is not None]))
        steps = np.clip(np.rint(metres / DEPTH_STEP_M), 0, 65535)
        arrays["depth"] = steps.astype(np.uint16)
    with writing_whole(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_recording(path: Path) -> Recording:
    """Read what ``save_recording`` wrote. Raises DataError when it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            stored = {key: file[key] for key in file.files}
        count = len(stored["rgb"])
        poses: list[list[tuple[str, FloatArray]]] = [[] for _ in range(count)]
        for i, name, T in zip(stored["frame"], stored["name"], stored["T"], strict=True):
            poses[i].append((str(name), T))
        frames = []
        for i in range(count):
            depth_m = None
            if "depth" in stored:
                depth_m = stored["depth"][i].astype(np.float32) * np.float32(DEPTH_STEP_M)
            stamp_ns = int(stored["stamp_ns"][i])
            frames.append(Frame(stored["rgb"][i], stored["K"][i], depth_m, stamp_ns=stamp_ns))
        source = str(stored["source"])
    except (OSError, EOFError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise DataError(
            f"Recording {path} cannot be read: {error}. Delete it; bench records it again."
        ) from error
    return Recording(tuple(frames), tuple(map(tuple, poses)), source)
