"""Manifests: a model that is damaged, or made for other objects, is refused with the remedy."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from heatnet_ros.config import EngineConfig
from heatnet_ros.errors import ConfigError, ModelError
from heatnet_ros.manifest import Manifest, check_objects, load_manifest
from heatnet_ros.objects import ObjectLibrary, load_objects

DEMO = Path(__file__).parents[2] / "config" / "objects" / "demo.yaml"
ONNX = b"not a network, but a file"
CONTENT: dict[str, Any] = {
    "estimator": "heatnet",
    "onnx_file": "model.onnx",
    "onnx_sha256": hashlib.sha256(ONNX).hexdigest(),
    "objects": ["mug", "valve"],
    "objects_hash": "",
    "input_hw": [256, 256],
    "stride": 4,
    "keypoints": 32,
    "crop_margin": 1.3,
    "inputs": {"rgb": "rgb"},
    "outputs": {"heatmaps": "heatmaps"},
    "training": {"commit": "abc"},
    "accuracy": {},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "some_model"
    path.mkdir()
    (path / "model.onnx").write_bytes(ONNX)
    _write(path)
    return path


@pytest.fixture(scope="module")
def library() -> ObjectLibrary:
    return load_objects(DEMO)


def _write(folder: Path, **changes: Any) -> None:
    content = {k: v for k, v in (CONTENT | changes).items() if v is not None}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(content))


def test_a_good_manifest(folder: Path) -> None:
    manifest = load_manifest(folder)
    assert manifest.name == "some_model" and manifest.onnx_path == folder / "model.onnx"
    assert manifest.objects == ("mug", "valve") and manifest.input_hw == (256, 256)
    assert manifest.training["commit"] == "abc"


@pytest.mark.parametrize("bears", [True, False, None])
def test_auto_precision_is_one_that_the_network_bears(folder: Path, bears: bool | None) -> None:
    _write(folder, bf16=bears)
    manifest = load_manifest(folder)
    auto = manifest.choose_engine(EngineConfig(threads=3))
    assert (auto.precision, auto.threads) == ("fp32" if bears is False else "auto", 3)
    asked = manifest.choose_engine(EngineConfig(precision="bf16"))
    assert asked.precision == "bf16"  # who asks for it by name gets it


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no manifest\.yaml.*export.*'model' parameter"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("key", CONTENT)
def test_every_key_is_needed(folder: Path, key: str) -> None:
    _write(folder, **{key: None})
    with pytest.raises(ModelError, match=rf"manifest\.yaml: '{key}' must be .*, got None"):
        load_manifest(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("stride", "4"), ("stride", 4.5), ("objects", "mug"), ("inputs", ["rgb"]), ("keypoints", [])],
)
def test_wrong_types(folder: Path, key: str, value: Any) -> None:
    _write(folder, **{key: value})
    with pytest.raises(ModelError, match=rf"'{key}' must be .*Export the model again"):
        load_manifest(folder)


def test_missing_network_file(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"'some_model': network file .*model\.onnx is missing"):
        load_manifest(folder)


def test_one_flipped_bit_is_seen(folder: Path) -> None:
    damaged = bytearray(ONNX)
    damaged[7] ^= 1
    (folder / "model.onnx").write_bytes(damaged)
    with pytest.raises(
        ModelError, match=rf"sha256 of .*model\.onnx is .*{CONTENT['onnx_sha256'][:12]}"
    ):
        load_manifest(folder)


def test_broken_yaml_names_the_file(folder: Path) -> None:
    (folder / "manifest.yaml").write_text("a: [1\n")
    with pytest.raises((ModelError, ConfigError), match=r"manifest\.yaml is not valid YAML"):
        load_manifest(folder)


def _fitting(folder: Path, library: ObjectLibrary, **changes: Any) -> Manifest:
    names = ["mug", "valve"]
    manifest = dataclasses.replace(
        load_manifest(folder),
        keypoints=len(library["mug"].keypoints_m),
        objects_hash=library.keypoints_hash(names),
    )
    return dataclasses.replace(manifest, **changes)


def test_objects_that_fit(folder: Path, library: ObjectLibrary) -> None:
    check_objects(_fitting(folder, library), library)
    # a detector knows names only
    check_objects(_fitting(folder, library, keypoints=0, objects_hash=""), library)


def test_unknown_objects(folder: Path, library: ObjectLibrary) -> None:
    with pytest.raises(ModelError, match=r"finds ape, which .*demo\.yaml does not define"):
        check_objects(_fitting(folder, library, objects=("mug", "ape")), library)


def test_another_keypoint_count(folder: Path, library: ObjectLibrary) -> None:
    have = len(library["mug"].keypoints_m)
    with pytest.raises(
        ModelError, match=rf"expects {have + 1} keypoints for 'mug', .* defines {have}\. Re-export"
    ):
        check_objects(_fitting(folder, library, keypoints=have + 1), library)


def test_other_keypoints(folder: Path, library: ObjectLibrary) -> None:
    moved = dataclasses.replace(library["valve"], keypoints_m=library["valve"].keypoints_m + 1e-4)
    other = dataclasses.replace(library, objects={**library.objects, "valve": moved})
    with pytest.raises(ModelError, match=r"trained for other keypoints.*Restore the object file"):
        check_objects(_fitting(folder, library), other)


def test_another_order_of_objects(folder: Path, library: ObjectLibrary) -> None:
    with pytest.raises(ModelError, match="trained for other keypoints"):
        check_objects(_fitting(folder, library, objects=("valve", "mug")), library)
