"""What limits is told from numbers that can be written down; a real network is measured."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from onnx_models import save_convolution, save_manifest

from heatnet_ros.bench import peaks, roofline
from heatnet_ros.bench.roofline import format_peaks, format_roofline, judge, measure_roofline
from heatnet_ros.params_file import load_params


def test_the_nearer_roof_limits_where_half_of_it_is_reached() -> None:
    # 60 of 100 GFLOP/s, 2 of 20 GB/s
    found = judge(60 * 10**9, 2 * 10**9, 1.0, 100.0, 20.0)
    assert found == {
        "flop_per_byte": 30.0, "gflop_per_s": 60.0, "peak_share": 0.6, "bandwidth_share": 0.1,
        "bound": "compute",
    }  # fmt: skip
    assert judge(6 * 10**9, 15 * 10**9, 1.0, 100.0, 20.0)["bound"] == "memory"
    assert judge(40 * 10**9, 9 * 10**9, 1.0, 100.0, 20.0)["bound"] == "neither"
    assert judge(40 * 10**9, 9 * 10**9, 0.5, 100.0, 20.0)["bound"] == "memory"


def test_without_a_peak_of_the_precision_compute_is_not_named() -> None:
    found = judge(90 * 10**9, 10**9, 1.0, None, 20.0)
    assert found["peak_share"] is None and found["bound"] == "neither"


def test_of_two_looks_at_the_machine_the_higher_peaks_count() -> None:
    def peaks(bf16: float, fp32: float, gb_s: float, kind: str) -> dict:
        return {
            "gflops": {"bf16": bf16, "fp32": fp32}, "bandwidth_gb_s": gb_s,
            "reached_by": {"bf16": kind, "fp32": kind},
        }  # fmt: skip

    found = roofline.keep_higher(peaks(1300, 330, 28, "matmul"), peaks(2400, 320, 47, "conv"))
    assert found == {
        "gflops": {"bf16": 2400, "fp32": 330}, "bandwidth_gb_s": 47,
        "reached_by": {"bf16": "conv", "fp32": "matmul"},
    }  # fmt: skip


def test_the_table_has_a_row_for_each_entry() -> None:
    entry = {
        "network": "parts_heatnet", "precision": "bf16", "batch": 4, "gflop": 3.667, "mb": 59.8,
        "ms": 7.3, **judge(3_667_000_000, 59_800_000, 7.3e-3, 2400.0, 47.0),
        "time_in": {"Reorder": 0.1, "Convolution": 0.68, "Concat": 0.09},
    }  # fmt: skip
    head, row = format_roofline([entry]).splitlines()
    assert head.split()[:4] == ["network", "precision", "batch", "GFLOP"]
    assert row.split() == [
        "parts_heatnet", "bf16", "4", "3.67", "59.8", "61", "7.30", "502", "21", "%", "17", "%",
        "neither", "Convolution", "68", "%,", "Reorder", "10", "%",
    ]  # fmt: skip
    assert format_roofline([{**entry, "peak_share": None}]).splitlines()[1].split()[8:11] == [
        "17", "%", "neither",
    ]  # fmt: skip


def test_a_network_is_counted_timed_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peaks, "MEASURE_S", 0.05)
    monkeypatch.setattr(peaks, "COPY_BYTES", 2**24)
    monkeypatch.setattr(peaks, "_ROWS", 64)
    monkeypatch.setattr(peaks, "_SIZE", 14)
    weight = np.ones((8, 3, 3, 3), np.float32)
    folders = [tmp_path / name for name in ("detector", "estimator")]
    for folder in folders:
        folder.mkdir()
        save_manifest(
            folder, save_convolution(folder / "model.onnx", weight), estimator="yolo",
            objects=["wedge"], input_hw=[16, 16], inputs={"image": "rgb"},
            outputs={"detections": "y"},
        )  # fmt: skip
    params = {"detector": {"model": str(folders[0])}, "estimator": {"model": str(folders[1])}}
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": params}}))
    found = measure_roofline(load_params(file))
    entries = [e for e in found["roofline"] if e["precision"] == "fp32"]
    assert [e["batch"] for e in entries] == 2 * list(roofline.BATCHES)
    for e in entries:
        flops = e["batch"] * 2 * (8 * 14 * 14) * 27
        assert e["gflop"] == flops / 1e9
        assert e["weights_mb"] >= 4 * weight.size / 1e6
        assert 0 < e["ms"] < 1000
        assert e["gflop_per_s"] == pytest.approx(flops / e["ms"] / 1e6, rel=0.02, abs=0.1)
        assert "Convolution" in e["time_in"]
        assert sum(e["time_in"].values()) == pytest.approx(1, abs=0.01)
        assert e["bound"] in ("compute", "memory", "neither")
    # the machine does what it can in every precision, and a chain of products comes near to it
    assert all(value > 1 for value in found["peaks"]["gflops"].values())
    assert 0.1 < found["peaks"]["bandwidth_gb_s"] < 10_000
    assert "fp32" in format_peaks(found["peaks"]) and "GB/s" in format_peaks(found["peaks"])
