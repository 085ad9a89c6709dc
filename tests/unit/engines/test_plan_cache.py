"""Kept plans of TensorRT: keys, damage, verdicts; no GPU and no TensorRT."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

from heatnet_ros.engines import Check, Difference, TensorSpec
from heatnet_ros.engines.batching import check_batch, choose_shapes, join_batch, split_batch
from heatnet_ros.engines.plan_cache import (
    PlanKey,
    PrecisionError,
    find_cache_folder,
    find_fault,
    hash_samples,
    load_plan,
)
from heatnet_ros.errors import EngineError, ModelError

KEY = PlanKey("a" * 64, "10.13.3.9", "NVIDIA Orin 8.7", "fp16", (1, 4, 16))
EQUAL = Difference(0.01, 32, 0.001)
IMAGE = TensorSpec("rgb", (None, 4, 4, 3), np.dtype("uint8"))
INDEX = TensorSpec("object_index", (None,), np.dtype("int64"))


class Shop:
    """Counts what is built, opened and measured; a plan is its number in bytes."""

    def __init__(self, folder: Path, difference: Difference | None = EQUAL) -> None:
        self.folder, self.difference = folder, difference
        self.built, self.measured, self.readable = 0, 0, True

    def load(self, key: PlanKey = KEY) -> bytes:
        return load_plan(key, self.folder, "net", self.build, self.open, self.measure, 0.5)

    def build(self) -> bytes:
        self.built += 1
        self.readable = True
        return b"plan %d" % self.built

    def open(self, plan: bytes) -> bytes | None:
        return plan if self.readable else None

    def measure(self, plan: bytes) -> Difference | None:
        self.measured += 1
        return self.difference


@pytest.mark.parametrize(
    "change",
    [
        {"onnx_sha256": "b" * 64},
        {"tensorrt": "10.13.3.10"},
        {"gpu": "NVIDIA Orin 8.9"},
        {"precision": "fp32"},
        {"batches": (1, 4, 8)},
        {"calibration_sha256": "c" * 64},
    ],
    ids=str,
)
def test_every_part_of_the_key_asks_for_a_plan_of_its_own(change: dict, tmp_path: Path) -> None:
    assert {*change} <= {f.name for f in dataclasses.fields(PlanKey)}
    shop = Shop(tmp_path)
    assert shop.load() == shop.load() == b"plan 1"
    other = dataclasses.replace(KEY, **change)
    assert other.digest() != KEY.digest()
    assert shop.load(other) == b"plan 2"
    assert shop.load() == b"plan 1"
    assert (shop.built, shop.measured) == (2, 2)


@pytest.mark.parametrize("damage", ["plan", "cut", "no plan", "record", "other", "unreadable"])
def test_a_plan_that_cannot_be_used_is_built_again(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(tmp_path)
    shop.load()
    (plan,), (record,) = tmp_path.glob("*.plan"), tmp_path.glob("*.json")
    if damage == "plan":
        plan.write_bytes(b"plan X")
    elif damage == "cut":
        plan.write_bytes(plan.read_bytes()[:3])
    elif damage == "no plan":
        plan.unlink()
    elif damage == "record":
        record.write_text(record.read_text()[:40])
    elif damage == "other":
        record.write_text(record.read_text().replace("Orin 8.7", "Orin 7.2"))
    else:
        shop.readable = False
    with caplog.at_level(logging.WARNING):
        assert shop.load() == b"plan 2"
    assert "built again" in caplog.text
    assert shop.load() == b"plan 2"
    assert (shop.built, shop.measured) == (2, 2)


def test_a_precision_that_changes_the_answers_is_refused_and_stays_so(tmp_path: Path) -> None:
    shop = Shop(tmp_path, Difference(float("inf"), 32, 0.2))
    for _ in range(2):
        with pytest.raises(PrecisionError, match=r"fp16 on NVIDIA Orin.*0\.5.*precision to fp32"):
            shop.load()
    assert (shop.built, shop.measured) == (1, 1)


def test_a_plan_that_nobody_could_judge_is_judged_when_somebody_can(tmp_path: Path) -> None:
    shop = Shop(tmp_path, None)
    shop.load()
    shop.difference = Difference(3.0, 32, 0.2)
    with pytest.raises(PrecisionError, match="differ by 3 px"):
        shop.load()
    assert shop.built == 1


def test_a_new_plan_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot read the plan that it just built"):
        load_plan(KEY, tmp_path, "net", lambda: b"", lambda _: None, lambda _: None, 0.5)


def test_a_folder_that_cannot_be_written_costs_only_the_next_build(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert Shop(tmp_path / "file").load() == b"plan 1"
    assert "is not kept" in caplog.text


@pytest.mark.parametrize(
    ("difference", "fault"),
    [
        (Difference(0.5, 1, 9.0), ""),
        (Difference(0.51, 1, 0.0), "0.51 px"),
        (Difference(float("nan"), 1, 0.0), "nan px"),
        (Difference(0.0, 0, 0.05), ""),
        (Difference(0.0, 0, 0.06), "0.06 of their range"),
        (Difference(0.0, 0, float("nan")), "nan of their range"),
    ],
    ids=str,
)
def test_limits(difference: Difference, fault: str) -> None:
    found = find_fault(difference, 0.5)
    assert fault in found and bool(found) == bool(fault)


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert find_cache_folder("") == Path("/cache/heatnet_ros/plans")
    assert find_cache_folder("/plans") == Path("/plans")


def test_samples_have_a_hash() -> None:
    def hashed(**arrays: np.ndarray) -> str:
        return hash_samples(Check((arrays,), True, lambda a, b: EQUAL, 0.5))

    zeros = np.zeros((1, 2), np.float32)
    assert hashed(x=zeros) == hashed(x=zeros.copy())
    others = [hashed(y=zeros), hashed(x=zeros + 1), hashed(x=zeros.T), hashed(x=zeros.view("i4"))]
    assert len({hashed(x=zeros), *others}) == 5


def test_batches_are_split_and_joined() -> None:
    tensors = {"rgb": np.zeros((35, 4, 4, 3), np.uint8), "object_index": np.arange(35)}
    specs = (IMAGE, INDEX)
    batch = check_batch(specs, tensors)
    parts = split_batch(specs, tensors, batch)
    assert [len(part["rgb"]) for part in parts] == [16, 16, 3]
    joined = join_batch([{"y": part["object_index"]} for part in parts])
    np.testing.assert_array_equal(joined["y"], np.arange(35))
    fixed = (dataclasses.replace(IMAGE, shape=(1, 4, 4, 3)),)
    assert check_batch(fixed, {"rgb": tensors["rgb"][:1]}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rgb": np.zeros((2, 4, 4, 3), np.float32)}, r"expected rgb uint8\[\?,4,4,3\], got float"),
        ({"rgb": np.zeros((2, 4, 5, 3), np.uint8)}, r"got uint8\[2, 4, 5, 3\]"),
        ({"rgb": np.zeros((3, 4, 4, 3), np.uint8)}, r"one batch size.*\[2, 3\]"),
        ({"image": np.zeros(1)}, "takes the inputs object_index, rgb, got image, object_index"),
    ],
)
def test_tensors_that_do_not_fit(change: dict, message: str) -> None:
    tensors = {"rgb": np.zeros((2, 4, 4, 3), np.uint8), "object_index": np.arange(2)} | change
    with pytest.raises(EngineError, match=message):
        check_batch((IMAGE, INDEX), tensors)


def test_shapes_of_a_profile() -> None:
    assert choose_shapes("rgb", (-1, 8, 8, 3)) == [(1, 8, 8, 3), (4, 8, 8, 3), (16, 8, 8, 3)]
    assert choose_shapes("image", (1, 8, 8, 3)) == [(1, 8, 8, 3)] * 3
    with pytest.raises(ModelError, match="only the first dimension may be open"):
        choose_shapes("rgb", (-1, -1, 8, 3))
