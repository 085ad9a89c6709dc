"""What the machine can do at most: products per second in each precision, bytes per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from heatnet_ros.bench.flops import count_flops
from heatnet_ros.engines.openvino_package import openvino
from heatnet_ros.machine import count_cores, total_memory_gb

ops = openvino.opset13

# as the engine asks for them
PROPERTIES: dict[str, dict[str, Any]] = {
    precision: {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    for precision, hint in (("bf16", "bf16"), ("fp32", "f32"))
}
MEASURE_S, LEAST_RUNS = 1.0, 10
# larger than any cache, and a small part of the memory
COPY_BYTES = 512 * 2**20
_LARGEST_SHARE = 1 / 16
# long chains: conversions at the ends do not count then
_LAYERS = 8
_ROWS, _WIDTH = 1024, 2048
_CHANNELS, _SIZE = 256, 56


def measure_peaks(precisions: tuple[str, ...]) -> dict[str, Any]:
    """gflops: precision -> billions of operations per second, the better of a chain of matrix
    products and one of 3x3 convolutions in OpenVINO; bandwidth_gb_s: bytes read and written by a
    copy of numpy arrays. All on every core that this process may use.
    """
    models = {"matmul": build_matmul(), "convolution": build_convolution()}
    gflops: dict[str, float] = {}
    kinds: dict[str, str] = {}
    for precision in precisions:
        found = {kind: _measure(model, precision) for kind, model in models.items()}
        kinds[precision] = max(found, key=lambda kind: found[kind])
        gflops[precision] = round(found[kinds[precision]], 1)
    bandwidth = round(measure_bandwidth_gb_s(), 2)
    return {"gflops": gflops, "reached_by": kinds, "bandwidth_gb_s": bandwidth}


def build_matmul() -> openvino.Model:
    """A chain of matrix products."""
    rng = np.random.default_rng(0)
    x = first = ops.parameter([_ROWS, _WIDTH], np.float32)
    for _ in range(_LAYERS):
        weights = rng.normal(0, _WIDTH**-0.5, (_WIDTH, _WIDTH)).astype(np.float32)
        x = ops.matmul(x, ops.constant(weights), False, False)
    return openvino.Model([x], [first], "matmul")


def build_convolution() -> openvino.Model:
    """A chain of 3x3 convolutions as networks have them."""
    rng = np.random.default_rng(0)
    x = first = ops.parameter([1, _CHANNELS, _SIZE, _SIZE], np.float32)
    for _ in range(_LAYERS):
        weights = rng.normal(0, (9 * _CHANNELS) ** -0.5, (_CHANNELS, _CHANNELS, 3, 3))
        x = ops.convolution(
            x, ops.constant(weights.astype(np.float32)), [1, 1], [1, 1], [1, 1], [1, 1]
        )
    return openvino.Model([x], [first], "convolution")


def measure_bandwidth_gb_s() -> float:
    """Bytes read plus bytes written per second by a large copy, a thread for each core."""
    size = int(min(COPY_BYTES, total_memory_gb() * 1e9 * _LARGEST_SHARE or COPY_BYTES))
    threads = count_cores()
    sources = np.array_split(np.ones(size, np.uint8), threads)
    targets = np.array_split(np.zeros(size, np.uint8), threads)
    with ThreadPoolExecutor(threads) as pool:
        best_s = time_best(lambda: list(pool.map(np.copyto, targets, sources)))
    return 2 * size / best_s / 1e9


def time_best(run: Callable[[], object]) -> float:
    """Seconds of the fastest of many runs: what other work on the machine disturbs least."""
    run()
    times: list[float] = []
    while len(times) < LEAST_RUNS or sum(times) < MEASURE_S:
        start_s = time.perf_counter()
        run()
        times.append(time.perf_counter() - start_s)
    return min(times)


def _measure(model: openvino.Model, precision: str) -> float:
    compiled = openvino.Core().compile_model(model, "CPU", PROPERTIES[precision])
    request = compiled.create_infer_request()
    port = model.inputs[0]
    values = np.random.default_rng(1).normal(size=list(port.get_shape())).astype(np.float32)
    seconds = time_best(lambda: request.infer([values], share_inputs=True))
    return count_flops(model) / seconds / 1e9
