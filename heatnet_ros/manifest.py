"""What a network file expects and gives: ``models/<name>/manifest.yaml``, written by export."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from heatnet_ros.config import EngineConfig, load_yaml
from heatnet_ros.errors import ConfigError, ModelError
from heatnet_ros.objects import ObjectLibrary


@dataclass(frozen=True)
class Manifest:
    """Contents of a manifest, checked when read.

    estimator: ``yolo`` or ``heatnet``. objects: names in the order of the network's classes.
    objects_hash: ``ObjectLibrary.keypoints_hash`` of them (empty for a detector). input_hw: pixels.
    stride: crop pixels per heatmap pixel (0 for a detector). inputs, outputs: role -> tensor name.
    training: command, commit, samples seen and so on, for people. accuracy: as measured at export.
    bf16: whether the network bears that arithmetic; manifests that say nothing were checked for it.
    covariance_scale: object -> factor of its poses' covariance (see ``uncertainty``), empty where
    none was measured.
    """

    name: str
    folder: Path
    estimator: str
    onnx_file: str
    onnx_sha256: str
    objects: tuple[str, ...]
    objects_hash: str
    input_hw: tuple[int, int]
    stride: int
    keypoints: int
    crop_margin: float
    inputs: dict[str, str]
    outputs: dict[str, str]
    training: dict[str, Any]
    accuracy: dict[str, Any]
    bf16: bool = True
    covariance_scale: dict[str, float] = field(default_factory=dict)

    @property
    def onnx_path(self) -> Path:
        """The network file."""
        return self.folder / self.onnx_file

    @property
    def unmeasured(self) -> list[str]:
        """Objects whose poses' covariance nobody has measured."""
        return [name for name in self.objects if name not in self.covariance_scale]

    def choose_engine(self, config: EngineConfig) -> EngineConfig:
        """The configuration whose ``auto`` precision is one that this network bears."""
        if config.precision == "auto" and not self.bf16:
            return replace(config, precision="fp32")
        return config


_FIELDS = {
    "estimator": str, "onnx_file": str, "onnx_sha256": str, "objects": list, "objects_hash": str,
    "input_hw": list, "stride": int, "keypoints": int, "crop_margin": float, "inputs": dict,
    "outputs": dict, "training": dict, "accuracy": dict, "bf16": bool,
    "covariance_scale": dict,
}  # fmt: skip


def describe_unmeasured(objects: Sequence[str]) -> str:
    """What a user has to know of their covariance."""
    return (
        f"the covariance of {', '.join(objects)} was not measured and is told with care, often too "
        "large (docs/stability.md)"
    )


def load_manifest(folder: Path) -> Manifest:
    """Read and check ``folder/manifest.yaml`` and the ONNX file's sha256.

    Raises ModelError on a missing file, a missing or mistyped key, or a wrong hash.
    """
    path = folder / "manifest.yaml"
    if not path.exists():
        raise ModelError(
            f"Model folder {folder} has no manifest.yaml. Expected a folder written by "
            "`python -m heatnet_ros export`; restore it or correct the 'model' parameter."
        )
    try:
        content = load_yaml(path, "Manifest")
    except ConfigError as error:
        raise ModelError(f"{error} Restore the file or export the model again.") from error
    content.setdefault("bf16", Manifest.bf16)
    content.setdefault("covariance_scale", {})
    for key, kind in _FIELDS.items():
        if not isinstance(content.get(key), kind):
            raise ModelError(
                f"Manifest {path}: '{key}' must be {kind.__name__}, got {content.get(key)!r}. "
                "Export the model again."
            )
    _check_covariance_scale(content, path)
    content = {key: content[key] for key in _FIELDS}
    content["objects"] = tuple(content["objects"])
    content["input_hw"] = tuple(content["input_hw"])
    manifest = Manifest(name=folder.name, folder=folder, **content)
    _check_sha256(manifest)
    return manifest


def _check_covariance_scale(content: dict[str, Any], path: Path) -> None:
    for name, factor in content["covariance_scale"].items():
        known = name in content["objects"]
        is_number = isinstance(factor, (int, float)) and not isinstance(factor, bool)
        if not known or not is_number or not 1e-3 <= factor <= 1e3:
            raise ModelError(
                f"Manifest {path}: covariance_scale must give objects of the model a number from "
                f"0.001 to 1000, got {name!r}: {factor!r}. Remove the line, or measure it again "
                "with tests/bench/measure_stability.py --calibrate --write."
            )


def _check_sha256(manifest: Manifest) -> None:
    path = manifest.onnx_path
    if not path.exists():
        raise ModelError(
            f"Model '{manifest.name}': network file {path} is missing. Restore it "
            "(git checkout, or git lfs pull where the repository uses LFS) or export again."
        )
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != manifest.onnx_sha256:
        raise ModelError(
            f"Model '{manifest.name}': sha256 of {path} is {got[:12]}..., the manifest says "
            f"{manifest.onnx_sha256[:12]}... The file is damaged or was replaced; restore both "
            "or export again."
        )


def check_objects(manifest: Manifest, library: ObjectLibrary) -> None:
    """Raise ModelError unless the library defines the objects the network was trained for."""
    missing = [name for name in manifest.objects if name not in library.objects]
    if missing:
        raise ModelError(
            f"Model '{manifest.name}' finds {', '.join(missing)}, which {library.path} does not "
            "define. Use the object file the model was trained with."
        )
    for name in manifest.objects:
        count = len(library[name].keypoints_m)
        if manifest.keypoints and count != manifest.keypoints:
            raise ModelError(
                f"Model '{manifest.name}' expects {manifest.keypoints} keypoints for '{name}', "
                f"{library.path} defines {count}. Re-export the model or restore the file."
            )
    if manifest.objects_hash:
        got = library.keypoints_hash(list(manifest.objects))
        if got != manifest.objects_hash:
            raise ModelError(
                f"Model '{manifest.name}' was trained for other keypoints or symmetries than "
                f"{library.path} defines (hash {manifest.objects_hash[:12]}, got {got[:12]}). "
                "Restore the object file or train again."
            )
