"""Run-time configuration: frozen dataclasses hold every default, description and range.

ROS parameters are declared from the same dataclasses (``ros/params.py``); a parameter file of the
node is therefore also what ``predict --params`` reads.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import yaml

from heatnet_ros.errors import ConfigError

T = TypeVar("T")
# libyaml's safe loader is 9 times faster, where PyYAML was built with it
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def option(
    default: Any,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    """Describe a dataclass field: what it means, its range or choices.

    ``live`` options may be changed while the node runs.
    """
    metadata = {
        "description": description, "low": low, "high": high, "choices": choices, "live": live,
    }  # fmt: skip
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class EngineConfig:
    """Which inference backend runs the networks."""

    backend: str = option(
        "auto",
        "Inference backend; auto takes the fastest that is installed: tensorrt or onnxruntime "
        "where there is an NVIDIA GPU for it, else openvino, else onnxruntime; it is logged",
        choices=("auto", "openvino", "onnxruntime", "tensorrt"),
    )
    precision: str = option(
        "auto",
        "Arithmetic; auto takes the fastest that backend, device and network bear: bf16 with "
        "openvino, fp16 with tensorrt, else fp32. int8 with tensorrt, or with openvino and a "
        "quantized model, of which another precision says how the rest is computed",
        choices=("auto", "fp32", "bf16", "fp16", "int8"),
    )
    threads: int = option(0, "CPU threads per network; 0 lets the backend choose", low=0, high=256)
    device: str = option(
        "auto",
        "Where networks run; cuda is an NVIDIA GPU, and an error where the backend cannot use it",
        choices=("auto", "cpu", "cuda"),
    )
    cache_dir: str = option(
        "", "Folder for TensorRT's plans; empty is heatnet_ros/plans in the user's cache"
    )


@dataclass(frozen=True)
class DetectorConfig:
    """The object detector."""

    model: str = option("models/demo_yolo", "Folder with the detector's manifest.yaml")
    score_threshold: float = option(
        0.25,
        "Detections below this score are ignored; what is no object fails the gate later",
        low=0.0,
        high=1.0,
        live=True,
    )
    max_detections: int = option(
        16, "At most this many objects per frame, best first", low=1, high=300, live=True
    )


@dataclass(frozen=True)
class EstimatorConfig:
    """The pose estimator."""

    name: str = option("heatnet", "Pose estimator", choices=("heatnet",))
    model: str = option("models/demo_heatnet_rgbd", "Folder with the estimator's manifest.yaml")
    decode: str = option(
        "dark",
        "Heatmap decoding: dark (sub-pixel Taylor step on the log heatmap) or argmax",
        choices=("dark", "argmax"),
    )
    min_confidence: float = option(
        0.15, "Keypoints below this confidence are not used", low=0.0, high=1.0, live=True
    )
    ransac_threshold_px: float = option(
        6.0,
        "A keypoint is an inlier below this reprojection error, in pixels of the network's crop",
        low=0.1,
        high=64.0,
        live=True,
    )
    use_depth: bool = option(
        True,
        "Solve the pose from keypoints and measured depth together where a frame has depth, also "
        "for networks that see colour only",
        live=True,
    )


@dataclass(frozen=True)
class RefinerConfig:
    """The refinement of a pose."""

    name: str = option(
        "depth_icp",
        "none, or depth_icp: point-to-plane alignment of the object's surface with the depth",
        choices=("none", "depth_icp"),
    )
    iterations: int = option(10, "Largest number of steps", low=1, high=100, live=True)


@dataclass(frozen=True)
class GateConfig:
    """What a pose must fulfil to be published."""

    min_inliers: int = option(
        8, "Fewer inlier keypoints reject the pose", low=4, high=1000, live=True
    )
    max_reprojection_px: float = option(
        4.0,
        "A larger RMS reprojection error of the inliers, in crop pixels, rejects the pose",
        low=0.1,
        high=64.0,
        live=True,
    )
    max_depth_error: float = option(
        0.15,
        "A larger disagreement of pose and measured depth, as a part of the object's diameter, "
        "rejects the pose",
        low=0.005,
        high=10.0,
        live=True,
    )
    min_score: float = option(
        0.2, "A pose below this score is rejected", low=0.0, high=1.0, live=True
    )


@dataclass(frozen=True)
class FollowConfig:
    """Following objects from frame to frame instead of detecting them in each."""

    enabled: bool = option(
        True,
        "Take an object's next crop from where its pose is expected; the detector then runs beside "
        "the poses, for what is new or lost. false: the detector runs on every frame",
        live=True,
    )
    redetect_s: float = option(
        2.0,
        "Most seconds from one look of the detector for new objects to the next while others are "
        "followed: 0.25 s after a new one, then twice the time from look to look up to this (what "
        "was lost is looked for at once). Less finds new ones sooner; each look delays the poses "
        "of two or three frames on a small CPU",
        low=0.0, high=3600.0, live=True,
    )  # fmt: skip


@dataclass(frozen=True)
class FilterConfig:
    """Filtering poses over time, beside the raw ones."""

    enabled: bool = option(True, "Publish filtered poses beside the raw ones", live=True)
    acceleration_m_s2: float = option(
        4.0,
        "How hard an object or the camera accelerates (standard deviation); more follows faster "
        "and smooths less while something moves",
        low=0.01, high=100.0, live=True,
    )  # fmt: skip
    turn_acceleration_rad_s2: float = option(
        20.0, "The same for turns", low=0.01, high=1000.0, live=True
    )
    noise_share: float = option(
        0.22,
        "Part of a pose's covariance that is new in each frame; the rest stays as long as the view "
        "does, and no filter takes it away",
        low=0.01, high=1.0, live=True,
    )  # fmt: skip
    covariance_scale: float = option(
        1.0,
        "Factor of the poses' covariance where your camera has other errors than the one that the "
        "model's own factors were measured with (see docs/stability.md)",
        low=0.01, high=100.0, live=True,
    )  # fmt: skip
    gate_probability: float = option(
        0.9999,
        "A pose further from the expected one than all but this part of true ones is held back",
        low=0.5, high=0.999999, live=True,
    )  # fmt: skip
    max_gated: int = option(
        2, "After so many poses held back in a row the next one is believed",
        low=0, high=100, live=True,
    )  # fmt: skip


@dataclass(frozen=True)
class PipelineConfig:
    """Everything the pipeline needs, without ROS."""

    objects_file: str = option("config/objects/demo.yaml", "The object library")
    objects: tuple[str, ...] = option(
        (),
        "Names of the objects to look for; an empty list looks for all of the library",
        live=True,
    )
    engine: EngineConfig = field(default_factory=EngineConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    follow: FollowConfig = field(default_factory=FollowConfig)
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)


def build_config(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build a (nested) config dataclass from a mapping.

    Raises ConfigError on an unknown key (names the nearest known one), a wrong type or a value out
    of range; ``where`` names the file for the message.
    """
    hints = get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else f" Known: {', '.join(known)}."
            raise ConfigError(f"Unknown key '{key}' in {where}.{hint}")
        kind = hints[key]
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise ConfigError(f"'{key}' in {where} must be a mapping, got {value!r}.")
            arguments[key] = build_config(kind, value, f"{where}: {key}")  # type: ignore[arg-type]
        else:
            arguments[key] = check_option(known[key], kind, value, where)
    return cls(**arguments)


def check_option(f: dataclasses.Field[Any], kind: type, value: Any, where: str) -> Any:
    """Return ``value`` as the field's type or raise ConfigError with expected, got and where."""
    if kind == tuple[str, ...]:  # YAML and ROS know lists only
        return _check_names(f.name, value, where)
    kind = get_origin(kind) or kind
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"'{f.name}' in {where}: expected {kind.__name__}, got {value!r}.")
    low, high = f.metadata.get("low"), f.metadata.get("high")
    too_low = low is not None and not value >= low
    if too_low or (high is not None and not value <= high):
        raise ConfigError(f"'{f.name}' in {where}: expected {low} to {high}, got {value!r}.")
    choices = f.metadata.get("choices")
    if choices and value not in choices:
        raise ConfigError(
            f"'{f.name}' in {where}: expected one of {', '.join(choices)}, got {value!r}."
        )
    return value


def _check_names(name: str, value: Any, where: str) -> tuple[str, ...]:
    names = tuple(value) if isinstance(value, list | tuple) else None
    if names is None or not all(isinstance(item, str) and item for item in names):
        raise ConfigError(f"'{name}' in {where}: expected a list of names, got {value!r}.")
    return names


def check_number(
    key: str, value: Any, low: float, high: float = math.inf, *, whole: bool = False
) -> None:
    """Raise ConfigError unless ``value`` is a finite number from ``low`` to ``high``."""
    if not _is_number(value, low, high, whole):
        raise ConfigError(f"{key}: expected {_describe(low, high, whole)}, got {value!r}.")


def check_range(
    key: str, value: Any, low: float, high: float = math.inf, *, whole: bool = False
) -> None:
    """Raise ConfigError unless ``value`` is a tuple of two such numbers, the smaller one first."""
    pair = isinstance(value, tuple) and len(value) == 2
    if not (pair and all(_is_number(v, low, high, whole) for v in value) and value[0] <= value[1]):
        raise ConfigError(
            f"{key}: expected two values, the smaller one first, each "
            f"{_describe(low, high, whole)}, got {value!r}."
        )


def _is_number(value: Any, low: float, high: float, whole: bool) -> bool:
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return math.isfinite(value) and low <= float(value) <= high


def _describe(low: float, high: float, whole: bool) -> str:
    kind = "a whole number" if whole else "a number"
    if high < math.inf:
        return f"{kind} from {low:g} to {high:g}"
    return f"{kind} of {low:g} or more" if low > -math.inf else kind


def load_yaml(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML mapping. Raises ConfigError with file, line and remedy."""
    try:
        content = yaml.load(path.read_text(), Loader=_LOADER)
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{what} {path}: expected a mapping at the top, got {content!r:.60}.")
    return content
