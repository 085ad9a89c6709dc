"""Plans of TensorRT on disk, and the verdict on each: may it be used?

A plan belongs to one network, one version of TensorRT, one kind of GPU and one precision. Its
file's name carries a hash of all of them, so any other combination does not find it and builds its
own. Nothing here needs a GPU.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from heatnet_ros.engines import Check, Difference, Engine
from heatnet_ros.errors import DataError, EngineError
from heatnet_ros.files import write_json, write_whole

FORMAT = 1  # of key and record; a higher one makes every plan be built again
# where no keypoint or box is sure enough to be compared: heights of heatmaps, or scores
MAX_VALUE_DIFFERENCE = 0.05
_ENORMOUS = 1e9  # JSON has no infinity

T = TypeVar("T")
_log = logging.getLogger(__name__)


class PrecisionError(EngineError):
    """A precision changes what the network says."""


@dataclass(frozen=True)
class PlanKey:
    """What a plan depends on.

    gpu: name and compute capability. batches: smallest, usual, largest. calibration_sha256: of
    the samples that INT8 was calibrated on, else empty.
    """

    onnx_sha256: str
    tensorrt: str
    gpu: str
    precision: str
    batches: tuple[int, int, int]
    calibration_sha256: str = ""

    def digest(self) -> str:
        """A hash of all parts."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def find_cache_folder(cache_dir: str) -> Path:
    """The folder for plans: ``cache_dir``, else one in the user's cache."""
    if cache_dir:
        return Path(cache_dir).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "heatnet_ros" / "plans"


def hash_samples(check: Check) -> str:
    """A hash of the samples: names, types, shapes and values."""
    digest = hashlib.sha256()
    for sample in check.samples:
        for name in sorted(sample):
            array = sample[name]
            digest.update(f"{name} {array.dtype} {array.shape};".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def load_plan(
    key: PlanKey,
    folder: Path,
    name: str,
    build: Callable[[], bytes],
    open_plan: Callable[[bytes], T | None],
    measure: Callable[[T], Difference | None],
    limit_px: float,
) -> T:
    """The network of a plan that fits ``key``, built if there is none.

    name: starts the file's name, for people. open_plan: None for a plan that cannot be used.
    measure: the difference from the reference, or None where nobody knows how to judge; it is
    measured once and kept beside the plan. Raises PrecisionError when it is over the limit,
    EngineError when a plan just built cannot be used, and what ``build`` raises.
    """
    path = folder / f"{name}-{key.precision}-{key.digest()[:16]}.plan"
    record = _read_record(path, key)
    if record is not None and record["difference"] is not None:
        _require(Difference(**record["difference"]), limit_px, key, path)
    network = _open_kept(path, record, open_plan)
    if network is None:
        _log.warning(
            "Building %s for %s with TensorRT %s in %s; this takes minutes, once.",
            name, key.gpu, key.tensorrt, key.precision,
        )  # fmt: skip
        plan = build()
        network = open_plan(plan)
        if network is None:
            raise EngineError(
                f"TensorRT {key.tensorrt} cannot read the plan that it just built from {name}. "
                "Set engine.backend to onnxruntime, or use another version of TensorRT."
            )
        record = _new_record(key, plan)
        _keep(path, record, plan)
    if record is None or record["difference"] is None:
        difference = measure(network)
        if difference is not None:
            kept = (record or {}) | {"difference": asdict(_finite(difference))}
            _keep(path, kept, None)
            _require(difference, limit_px, key, path)
    return network


def compare_with(reference: Engine, engine: Engine, check: Check) -> Difference:
    """What ``engine`` answers otherwise than ``reference`` on the check's samples."""
    expected = [reference.run(sample) for sample in check.samples]
    return check.compare(expected, [engine.run(sample) for sample in check.samples])


def find_fault(difference: Difference, limit_px: float) -> str:
    """What is over its limit, in words; empty when nothing is. Not a number is over."""
    if difference.compared:
        if not difference.px <= limit_px:
            return f"decoded points differ by {difference.px:.3g} px (allowed {limit_px:g})"
    elif not difference.values <= MAX_VALUE_DIFFERENCE:
        return (
            f"values differ by {difference.values:.3g} of their range (allowed "
            f"{MAX_VALUE_DIFFERENCE:g}; no point was sure enough to be compared)"
        )
    return ""


def _require(difference: Difference, limit_px: float, key: PlanKey, path: Path) -> None:
    fault = find_fault(difference, limit_px)
    if fault:
        raise PrecisionError(
            f"TensorRT {key.tensorrt} in {key.precision} on {key.gpu} computes other results than "
            f"ONNX Runtime: {fault}. Set engine.precision to fp32, or use another version of "
            f"TensorRT. To measure again, delete {_record_path(path)}."
        )


def _record_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _new_record(key: PlanKey, plan: bytes) -> dict[str, Any]:
    parts = {"format": FORMAT, **asdict(key), "batches": list(key.batches)}
    return {"key": parts, "plan_sha256": hashlib.sha256(plan).hexdigest(), "difference": None}


def _read_record(path: Path, key: PlanKey) -> dict[str, Any] | None:
    """What stands beside the plan; None where there is none that is whole and for this key."""
    try:
        record = json.loads(_record_path(path).read_text())
        parts, difference = record["key"], record["difference"]
        if difference is not None:
            Difference(**difference)
        whole = isinstance(record["plan_sha256"], str) and parts == _new_record(key, b"")["key"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        _log.warning("%s is damaged; the plan is built again.", _record_path(path))
    return record if whole else None


def _open_kept(
    path: Path, record: dict[str, Any] | None, open_plan: Callable[[bytes], T | None]
) -> T | None:
    if record is None:
        return None
    try:
        plan = path.read_bytes()
    except OSError:
        plan = b""
    network = None
    if hashlib.sha256(plan).hexdigest() == record["plan_sha256"]:
        network = open_plan(plan)
    if network is None:
        _log.warning("%s is missing, damaged or of another TensorRT; it is built again.", path)
    return network


def _keep(path: Path, record: dict[str, Any], plan: bytes | None) -> None:
    """Write the plan, then the record that vouches for it. A full disk costs the next start."""
    try:
        if plan is not None:
            write_whole(path, plan)
        write_json(_record_path(path), record)
    except DataError as error:
        _log.warning("The plan is not kept and will be built again: %s", error)


def _finite(difference: Difference) -> Difference:
    px, values = (
        value if math.isfinite(value) else _ENORMOUS
        for value in (float(difference.px), float(difference.values))
    )
    return Difference(px, int(difference.compared), values)
