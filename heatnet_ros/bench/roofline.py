"""How near each network comes to what the machine can do, and what keeps it from more.

Roofline model: Williams, Waterman and Patterson, CACM 2009.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.config import EngineConfig, PipelineConfig
from heatnet_ros.engines import Engine, load_engine, require_installed
from heatnet_ros.manifest import Manifest, load_manifest
from heatnet_ros.progress import Progress
from heatnet_ros.resources import find_resource

BATCHES = (1, 4, 13)
# nearer to a roof than this, the roof is what limits
NEAR = 0.5
SHOWN_KINDS = 2
COMPUTE, MEMORY, NEITHER = "compute", "memory", "neither"
_HEAD = ("network", "precision", "batch", "GFLOP", "MB", "FLOP/byte", "ms", "GFLOP/s", "of peak",
         "of bandwidth", "bound by", "time in")  # fmt: skip


def measure_roofline(config: PipelineConfig) -> dict[str, Any]:
    """``peaks`` of the machine and ``roofline``: an entry per network, precision and batch size.

    Detector and estimator of ``config`` in OpenVINO, in every precision that the CPU computes in.
    Raises EngineError without OpenVINO, ModelError where a network cannot be loaded.
    """
    require_installed("openvino")
    from heatnet_ros.bench.peaks import measure_peaks
    from heatnet_ros.engines.openvino import list_precisions

    manifests = [
        load_manifest(find_resource(config.detector.model, "Detector model")),
        load_manifest(find_resource(config.estimator.model, "Estimator model")),
    ]
    precisions = list_precisions()
    progress = Progress("roofline", 2 + len(manifests) * len(precisions))
    peaks = measure_peaks(precisions)
    progress.step("peaks of the machine")
    entries: list[dict[str, Any]] = []
    for manifest in manifests:
        for precision in precisions:
            entries += _measure_network(manifest, precision)
            progress.step(f"{manifest.name} {precision}")
    # again: other work on the machine may have disturbed the first look
    peaks = keep_higher(peaks, measure_peaks(precisions))
    progress.step("peaks of the machine, again")
    return {"peaks": peaks, "roofline": [_judge_entry(entry, peaks) for entry in entries]}


def keep_higher(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The higher of each peak of two results of ``measure_peaks``."""
    better = {
        name: second if second["gflops"][name] > value else first
        for name, value in first["gflops"].items()
    }
    return {
        "gflops": {name: found["gflops"][name] for name, found in better.items()},
        "reached_by": {name: found["reached_by"][name] for name, found in better.items()},
        "bandwidth_gb_s": max(first["bandwidth_gb_s"], second["bandwidth_gb_s"]),
    }


def judge(
    flops: int, traffic: int, seconds: float, peak_gflops: float | None, bandwidth_gb_s: float
) -> dict[str, Any]:
    """Shares of the machine's peaks that were reached, and which of them limits.

    ``bound``: compute or memory, where at least half of that peak is reached, else neither.
    Without a peak of this precision its share is None and compute is never named.
    """
    gflops, gb_s = flops / seconds / 1e9, traffic / seconds / 1e9
    of_peak = None if peak_gflops is None else gflops / peak_gflops
    of_bandwidth = gb_s / bandwidth_gb_s
    shares = {COMPUTE: of_peak or 0.0, MEMORY: of_bandwidth}
    nearest = max(shares, key=lambda name: shares[name])
    return {
        "flop_per_byte": round(flops / traffic, 1),
        "gflop_per_s": round(gflops, 1),
        "peak_share": None if of_peak is None else round(of_peak, 3),
        "bandwidth_share": round(of_bandwidth, 3),
        "bound": nearest if shares[nearest] >= NEAR else NEITHER,
    }


def format_peaks(peaks: Mapping[str, Any]) -> str:
    """One line."""
    told = [
        f"{value:.0f} GFLOP/s in {precision} ({peaks['reached_by'][precision]})"
        for precision, value in peaks["gflops"].items()
    ]
    return f"peaks: {', '.join(told)}, {peaks['bandwidth_gb_s']:.1f} GB/s"


def format_roofline(entries: Sequence[Mapping[str, Any]]) -> str:
    """A row per entry."""
    rows = [_HEAD]
    for e in entries:
        peak = "" if e["peak_share"] is None else f"{100 * e['peak_share']:.0f} %"
        rows.append(
            (
                e["network"], e["precision"], str(e["batch"]), f"{e['gflop']:.2f}",
                f"{e['mb']:.1f}", f"{e['flop_per_byte']:.0f}", f"{e['ms']:.2f}",
                f"{e['gflop_per_s']:.0f}", peak, f"{100 * e['bandwidth_share']:.0f} %", e["bound"],
                ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in _most(e["time_in"])),
            )
        )  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in (0, 1, 10, 11) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _measure_network(manifest: Manifest, precision: str) -> list[dict[str, Any]]:
    from heatnet_ros.bench.peaks import time_best

    config = manifest.choose_engine(EngineConfig("openvino", precision, device="cpu"))
    engine = load_engine(manifest.onnx_path, config)
    runs_in = engine.description.split()[-1]
    is_open = any(spec.shape[0] is None for spec in engine.inputs)
    entries = []
    for batch in BATCHES if is_open else (1,):
        tensors = _fill(engine, batch)
        flops, traffic, shares = _inspect(manifest.onnx_path, precision, batch, tensors)
        seconds = time_best(lambda tensors=tensors: engine.run(tensors))  # type: ignore[misc]
        entries.append(
            {
                "network": manifest.name, "precision": runs_in, "batch": batch,
                "gflop": flops / 1e9, "mb": traffic.total / 1e6,
                "weights_mb": traffic.weights / 1e6, "ms": 1e3 * seconds,
                "time_in": shares,
            }
        )  # fmt: skip
    return entries


def _judge_entry(entry: Mapping[str, Any], peaks: Mapping[str, Any]) -> dict[str, Any]:
    peak = peaks["gflops"].get(entry["precision"])
    flops, traffic = round(entry["gflop"] * 1e9), round(entry["mb"] * 1e6)
    return {
        **entry,
        **judge(flops, traffic, entry["ms"] / 1e3, peak, peaks["bandwidth_gb_s"]),
    }


def _inspect(
    path: Path, precision: str, batch: int, tensors: Mapping[str, NDArray[Any]]
) -> tuple[int, Any, dict[str, float]]:
    """Operations, bytes and, by kind of layer, shares of the layers' time at this batch size."""
    from heatnet_ros.bench.flops import count_flops, count_traffic, set_batch
    from heatnet_ros.bench.peaks import LEAST_RUNS, PROPERTIES
    from heatnet_ros.engines.openvino_package import openvino

    core = openvino.Core()
    model = core.read_model(path)
    set_batch(model, batch)
    # measured apart from the time of the whole: looking at each layer takes time
    compiled = core.compile_model(model, "CPU", PROPERTIES[precision] | {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    times: Counter[str] = Counter()
    for number in range(1 + LEAST_RUNS):
        request.infer(dict(tensors))
        for layer in request.profiling_info if number else ():
            times[layer.node_type] += layer.real_time.total_seconds()
    whole = sum(times.values())
    shares = {kind: round(value / whole, 3) for kind, value in times.most_common() if value}
    return count_flops(model), count_traffic(compiled), shares


def _most(shares: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda item: -item[1])[:SHOWN_KINDS]


def _fill(engine: Engine, batch: int) -> dict[str, NDArray[Any]]:
    """Inputs of any content: time does not depend on it. Integers are 0, a valid index."""
    rng = np.random.default_rng(0)
    tensors = {}
    for spec in engine.inputs:
        shape = [batch if size is None else size for size in spec.shape]
        if spec.dtype == np.uint8:
            tensors[spec.name] = rng.integers(0, 256, shape, np.uint8)
        elif spec.dtype.kind == "f":
            tensors[spec.name] = rng.uniform(-1, 1, shape).astype(spec.dtype)
        else:
            tensors[spec.name] = np.zeros(shape, spec.dtype)
    return tensors
