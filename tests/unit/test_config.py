"""Configuration: defaults, ranges, and messages that name the key and the way out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heatnet_ros.config import GateConfig, PipelineConfig, build_config, load_yaml
from heatnet_ros.errors import ConfigError


def _build(**values: Any) -> PipelineConfig:
    return build_config(PipelineConfig, values, "demo.yaml")


def _options(cls: type, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    instance = cls()
    for f in dataclasses.fields(cls):
        value = getattr(instance, f.name)
        if dataclasses.is_dataclass(value):
            yield from _options(type(value), f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", f, value


OPTIONS = list(_options(PipelineConfig))


@pytest.mark.parametrize(("name", "f", "value"), OPTIONS, ids=[o[0] for o in OPTIONS])
def test_every_option_is_described_and_its_default_is_allowed(
    name: str, f: dataclasses.Field[Any], value: Any
) -> None:
    assert f.metadata["description"]
    nested: dict[str, Any] = {f.name: value}
    for part in reversed(name.split(".")[:-1]):
        nested = {part: nested}
    assert _build(**nested) == PipelineConfig()


def test_values_are_taken_and_whole_numbers_become_floats() -> None:
    config = _build(objects_file="x.yaml", gate={"min_inliers": 6, "max_reprojection_px": 3})
    assert config.objects_file == "x.yaml"
    assert config.gate == GateConfig(min_inliers=6, max_reprojection_px=3.0)
    assert type(config.gate.max_reprojection_px) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"gate": {"min_inlier": 5}},
            r"Unknown key 'min_inlier' in demo.yaml: gate.*'min_inliers'",
        ),
        ({"detecter": {}}, "Unknown key 'detecter' in demo.yaml.*Did you mean 'detector'"),
        ({"xyzzy": 1}, "Known: objects_file, objects, engine"),
        ({"gate": 5}, "'gate' in demo.yaml must be a mapping, got 5"),
        ({"gate": {"min_inliers": 3}}, "expected 4 to 1000, got 3"),
        ({"gate": {"min_inliers": 8.0}}, "expected int, got 8.0"),
        ({"gate": {"min_inliers": True}}, "expected int, got True"),
        ({"gate": {"min_score": True}}, "expected float, got True"),
        ({"gate": {"min_score": "0.5"}}, "expected float, got '0.5'"),
        ({"gate": {"min_score": float("nan")}}, "expected 0.0 to 1.0, got nan"),
        ({"gate": {"min_score": 1.01}}, "expected 0.0 to 1.0, got 1.01"),
        ({"engine": {"backend": "tensorflow"}}, "one of auto, openvino, onnxruntime, tensorrt"),
        ({"objects_file": 3}, "expected str, got 3"),
    ],
)
def test_wrong_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _build(**values)


def test_load_yaml(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: {b: 1}\n")
    assert load_yaml(path, "File") == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1, 2\nb: 3\n", r"Object library .*a\.yaml is not valid YAML.*line 2"),
        (b"- 1\n- 2\n", "expected a mapping at the top"),
        (b"", "expected a mapping at the top, got None"),
        (b"\x89PNG\xff\xfe", r"a\.yaml is not"),
    ],
)
def test_wrong_yaml(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    # (?s) because YAML's own message spans lines
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        load_yaml(path, "Object library")


def test_missing_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml cannot be read: No such file"):
        load_yaml(tmp_path / "no.yaml", "File")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_yaml(tmp_path, "File")
