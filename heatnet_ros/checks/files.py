"""Parameter file, objects, models and engines: what the node reads when it configures.

Every network is loaded on the backend that the node would take, run, and, where it computes in less
than fp32 and samples were recorded, compared with ONNX Runtime in fp32.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from heatnet_ros.checks.finding import Finding, error, from_error, ok, warning
from heatnet_ros.config import EngineConfig, PipelineConfig
from heatnet_ros.consistency import check_consistency
from heatnet_ros.engines import Check, Engine, has_gpu, is_installed, list_engines, load_engine
from heatnet_ros.engines.plan_cache import compare_with, find_fault
from heatnet_ros.errors import EngineError, HeatnetError
from heatnet_ros.estimators.agreement import build_check
from heatnet_ros.manifest import Manifest, describe_unmeasured, load_manifest
from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.params_file import load_known_params, load_qos_overrides
from heatnet_ros.resources import find_resource
from heatnet_ros.ros.node_config import NodeConfig

_RUNS = 5


@dataclass(frozen=True)
class ParameterSet:
    """A whole parameter file; ``qos`` are its ``qos_overrides...``.

    unknown: parameters that the node ignores -> what they may mean.
    """

    node: NodeConfig
    pipeline: PipelineConfig
    unknown: Mapping[str, str]
    qos: Mapping[str, Any]


def check_parameters(params: str) -> tuple[ParameterSet | None, Finding]:
    """Read the parameter file; None where it cannot be."""
    try:
        path = find_resource(params, "Parameter file")
        parameters = ParameterSet(*load_known_params(path), load_qos_overrides(path))
        return parameters, ok("parameters", f"{path} is read")
    except HeatnetError as fault:
        return None, from_error(fault, "parameters")


def check_files(parameters: ParameterSet) -> Iterator[Finding]:
    """Objects, models, whether they belong together, and each network at work."""
    config = parameters.pipeline
    for name, hint in parameters.unknown.items():
        yield warning("parameters", f"'{name}' is unknown, the node ignores it", hint)
    library = None
    try:
        library = load_objects(find_resource(config.objects_file, "Object library"))
        yield from check_library(library)
    except HeatnetError as fault:
        yield from_error(fault, "objects")
    yield _list_backends()
    roles = {"detector": config.detector.model, "estimator": config.estimator.model}
    manifests: dict[str, Manifest] = {}
    for role, folder in roles.items():
        try:
            manifests[role] = load_manifest(find_resource(folder, f"{role.capitalize()} model"))
        except HeatnetError as fault:
            yield from_error(fault, role)
        if role in manifests:
            yield from check_network(role, manifests[role], config)
    if len(manifests) == 2:
        yield from _check_fit(library, manifests, parameters)
    if parameters.node.publish_tf and importlib.util.find_spec("rclpy"):
        yield from _check_tf()


def _check_fit(
    library: ObjectLibrary | None, manifests: Mapping[str, Manifest], parameters: ParameterSet
) -> Iterator[Finding]:
    """What the pipeline refuses when it is loaded, and the node when it configures."""
    try:
        if library is not None:
            check_consistency(parameters.pipeline, library, **manifests)
    except HeatnetError as fault:
        yield from_error(fault, "models")
    yield from _check_depth_use(manifests["estimator"], parameters)
    unmeasured = manifests["estimator"].unmeasured
    if unmeasured:
        yield ok("estimator", describe_unmeasured(unmeasured))


def _check_tf() -> Iterator[Finding]:
    if importlib.util.find_spec("tf2_msgs") is None:
        yield error(
            "parameters",
            "publish_tf is true, but tf2_msgs is not installed",
            "Install ros-$ROS_DISTRO-tf2-msgs, or set publish_tf to false.",
        )


def check_library(library: ObjectLibrary) -> Iterator[Finding]:
    """Sizes, symmetries and meshes of the objects."""
    models = library.objects.values()
    sizes = [model.diameter_m for model in models]
    turned = [model.name for model in models if model.symmetries.any]
    symmetric = f"; symmetric: {', '.join(turned)}" if turned else "; none is symmetric"
    yield ok(
        "objects",
        f"{', '.join(library.objects)} of {library.path.name}, {min(sizes):.3f} to "
        f"{max(sizes):.3f} m{symmetric}",
    )
    missing = [m.name for m in models if m.mesh_path is None or not m.mesh_path.exists()]
    if missing:
        yield warning(
            "objects",
            f"no mesh of {', '.join(missing)} where {library.path} names it",
            "Poses come all the same, RViz shows boxes; put them there to see the shapes "
            "(LINEMOD's are not shipped: models/README.md).",
        )


def check_network(role: str, manifest: Manifest, config: PipelineConfig) -> Iterator[Finding]:
    """Load and run a network: backend, device, precision, time, agreement with fp32."""
    wanted = manifest.choose_engine(config.engine)
    try:
        engine = load_engine(manifest.onnx_path, wanted, partial(build_check, manifest))
        check = build_check(manifest)
        times_ms = [_time_ms(engine, check) for _ in range(_RUNS + 1)][1:]
        told = f"{manifest.name} on {engine.description}, {np.median(times_ms):.3g} ms a run"
        yield ok(role, told)
        if " CPU " in f"{engine.description} " and has_gpu() and wanted.device != "cpu":
            yield _idle_gpu(role, engine)
        yield from _check_agreement(role, manifest.onnx_path, engine, check)
    except HeatnetError as fault:
        yield from_error(fault, role)


def _time_ms(engine: Engine, check: Check) -> float:
    start_s = time.perf_counter()
    engine.run(check.samples[0])
    return 1e3 * (time.perf_counter() - start_s)


def _idle_gpu(role: str, engine: Engine) -> Finding:
    return warning(
        role,
        f"runs on {engine.description}, though there is an NVIDIA GPU",
        "Install tensorrt and pycuda, or onnxruntime-gpu in place of onnxruntime; set "
        "engine.device to cuda to have an error rather than the CPU, to cpu to be content.",
    )


def _check_agreement(role: str, onnx: Path, engine: Engine, check: Check) -> Iterator[Finding]:
    """On recorded samples only: a drawn pattern is no image, and the network unsure of it.

    Without any, export's own check of the arithmetic stands (``manifest.bf16``).
    """
    if "fp32" in engine.description or not check.real or not is_installed("onnxruntime"):
        return
    try:
        reference = load_engine(onnx, EngineConfig(backend="onnxruntime", device="cpu"))
        difference = compare_with(reference, engine, check)
    except EngineError as fault:
        yield from_error(fault, role)
        return
    fault_text = find_fault(difference, check.limit_px)
    if fault_text:
        yield error(
            role,
            f"{engine.description} computes other results than fp32: {fault_text}",
            "Set engine.precision to fp32, or update the backend.",
        )
        return
    measured = f"{difference.values:.2g} of the values' range"
    if difference.compared:
        measured = f"{difference.px:.2g} px (99 % of {difference.compared} points)"
    yield ok(role, f"{engine.description} agrees with fp32 to {measured}")


def _list_backends() -> Finding:
    found = ", ".join(f"{backend} {precision}" for backend, precision in list_engines())
    gpu = "an NVIDIA GPU" if has_gpu() else "no NVIDIA GPU"
    if found:
        return ok("backends", f"can run here: {found}; {gpu}")
    return error(
        "backends",
        "none is installed, expected openvino or onnxruntime",
        "pip install openvino, or onnxruntime-gpu for an NVIDIA GPU.",
    )


def _check_depth_use(estimator: Manifest, parameters: ParameterSet) -> Iterator[Finding]:
    if "depth" in estimator.inputs and parameters.node.use_depth == "false":
        yield error(
            "parameters",
            f"use_depth is false, but the model {estimator.name} needs depth",
            "Set use_depth to auto, or take a model without depth.",
        )
