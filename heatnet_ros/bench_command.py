"""``python -m heatnet_ros bench``: how fast the pipeline is here, per stage, engine and object."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from heatnet_ros import __version__
from heatnet_ros.bench.case import MODES, Case
from heatnet_ros.bench.recording import (
    RATE_HZ,
    load_recording,
    read_scene,
    record_film,
    save_recording,
)
from heatnet_ros.bench.table import format_stages, format_table, list_speedups
from heatnet_ros.config import PipelineConfig
from heatnet_ros.engines import list_engines
from heatnet_ros.errors import ConfigError, EngineError
from heatnet_ros.files import make_folder, write_json, write_whole
from heatnet_ros.machine import (
    count_cores,
    describe_package,
    describe_processor,
    total_memory_gb,
)
from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.params_file import load_params
from heatnet_ros.progress import Progress
from heatnet_ros.resources import find_resource

DEFAULT_COUNTS = (1, 4, 8, 13)
RECORDED_FRAMES = 90
_VERSIONS = ("openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt", "torch", "opencv-python",
             "opencv-python-headless", "numpy")  # fmt: skip
_EPILOG = """\
Every case runs in a process of its own, on the same recorded frames at 30 Hz, with the true boxes
of exactly N objects (the detector runs and its time counts; its boxes are replaced). Modes: follow
(the detector beside the poses) and detect (the detector on every frame).

--networks full measures the published networks (YOLOv10m, HeatNet 256) with random weights: time
does not depend on what they know, their heatmaps are replaced by true ones with noise and outliers.
--baseline adds the plain way in the same run: PyTorch eager, the published networks, the detector
on every frame, one crop at a time. Both need the training extra (torch, ultralytics).

examples:
  python -m heatnet_ros bench --params config/pose_demo.yaml --objects 1,3
  python -m heatnet_ros bench --ros --seconds 300 --objects 1
  python -m heatnet_ros bench --params config/pose_lm_rgbd.yaml --networks full --baseline \\
      --objects 1 --json bench.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("--params", default="config/pose_demo.yaml", help="parameter file (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write everything measured")
    add(
        "--objects", type=_counts, metavar="N,N,...",
        help="numbers of objects (1,4,8,13, as far as the library goes)",
    )  # fmt: skip
    add("--modes", type=_names, default=MODES, help="follow,detect (both)")
    add(
        "--engines", type=_names, metavar="BACKEND:PRECISION,...",
        help="for instance openvino:bf16,onnxruntime:fp32 (all that are here)",
    )  # fmt: skip
    add("--count", type=int, default=200, metavar="N", help="frames to measure in each case (200)")
    add(
        "--rate", type=float, default=RATE_HZ, metavar="HZ",
        help="frames per second that are fed; 0: as fast as it goes (30)",
    )  # fmt: skip
    add(
        "--frames", type=Path, metavar="BOP_SCENE",
        help="run on a scene's images instead of a rendered film",
    )  # fmt: skip
    add(
        "--networks", choices=("params", "full"), default="params",
        help="those of the parameter file (params), or the published ones, untrained",
    )  # fmt: skip
    add(
        "--ros", action="store_true",
        help="measure camera, node and a listener over DDS instead: stamp to pose received",
    )  # fmt: skip
    add("--seconds", type=float, default=60.0, help="how long --ros runs (60)")
    add("--baseline", action="store_true", help="measure the plain way too")
    add(
        "--baseline-frames", type=int, default=10, metavar="N", help="frames of the baseline (10)"
    )  # fmt: skip
    add(
        "--out", type=Path, default=Path("runs/bench"),
        help="recordings, untrained networks and logs (runs/bench)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the subcommand. Raises HeatnetError with what is missing and the remedy."""
    params = find_resource(args.params, "Parameter file")
    config = load_params(params)
    library = load_objects(find_resource(config.objects_file, "Object library"))
    _check(args)
    if args.ros:
        return run_ros(args, params)
    counts = _choose_counts(args.objects, len(library.objects))
    make_folder(args.out)
    recording = _find_recording(args, library, max(counts))
    if args.networks == "full":
        params = _write_full_params(args.out, config, library)
    baseline = _run_baseline(args, library, recording, counts) if args.baseline else []
    cases = _list_cases(args, config, params, recording, counts)
    progress = Progress("cases", len(cases))
    runs: list[dict[str, Any]] = []
    for case in cases:
        done = _run_case(args.out, case)
        runs += done
        progress.step(f"{case.backend} {case.precision} {case.mode}: " + ", ".join(
            f"{run['objects']} objects {run['ms']['p50']:.1f} ms" for run in done
        ))  # fmt: skip
    document = {
        "hardware": describe_hardware(),
        "commit": describe_package(),
        "versions": list_versions(),
        "params": str(args.params),
        "networks": args.networks,
        "recording": load_recording(recording).source,
        "rate_hz": args.rate,
        "runs": runs,
        "baseline": baseline,
        "speedup": list_speedups(runs, baseline),
    }
    print(f"{json.dumps(document['hardware'])}, commit {document['commit']}")
    print(format_stages(runs) + "\n")
    print(format_table(runs, baseline))
    if args.json is not None:
        write_json(args.json, document)
    return 0


def run_ros(args: argparse.Namespace, params: Path) -> int:
    """A synthetic camera, the node and a listener in processes of their own."""
    from heatnet_ros.ros.demo import Show, play

    count = (args.objects or (1,))[0]
    rate = args.rate or RATE_HZ
    show = Show(str(params), args.seconds, rate, replay=RECORDED_FRAMES, scenes=1, objects=count)
    report = play(show, args.out / "ros")
    memory = report["memory_mb"]
    # networks and buffers come with the first frames
    settled = memory[len(memory) // 10 :] or [report["rss_mb"]]
    run = {
        "mode": "ros", "objects": count, "rate_hz": rate, "seconds": args.seconds,
        "ms": report["latency_ms"], "frames": report["frames"], "poses_hz": report["rate_hz"],
        "recall_add_01d": report["recall_add_01d"], "engine": report["engine"],
        "rss_mb": report["rss_mb"],
        "memory_growth_percent": round(100 * (settled[-1] / settled[0] - 1), 2),
    }  # fmt: skip
    document = {
        "hardware": describe_hardware(), "commit": describe_package(), "versions": list_versions(),
        "params": str(args.params), "runs": [run], "baseline": [], "speedup": [],
    }  # fmt: skip
    print(json.dumps(run, indent=1))
    if args.json is not None:
        write_json(args.json, document)
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.count < 1 or args.baseline_frames < 1 or args.rate < 0:
        raise ConfigError(
            "--count and --baseline-frames must be 1 or more and --rate 0 or more, got "
            f"{args.count}, {args.baseline_frames} and {args.rate:g}."
        )
    unknown = set(args.modes) - set(MODES)
    if unknown:
        raise ConfigError(f"--modes: expected {', '.join(MODES)}, got {', '.join(unknown)}.")
    missing = [name for name in ("torch", "ultralytics") if importlib.util.find_spec(name) is None]
    if missing and (args.networks == "full" or args.baseline):
        raise ConfigError(
            f"--networks full and --baseline need {', '.join(missing)}. Install the training "
            "extra: pip install 'heatnet_ros[train]'."
        )


def _choose_counts(wanted: tuple[int, ...] | None, there: int) -> tuple[int, ...]:
    if wanted is not None:
        if min(wanted) < 1 or max(wanted) > there:
            raise ConfigError(f"--objects: expected 1 to {there}, got {','.join(map(str, wanted))}")
        return wanted
    counts = tuple(count for count in DEFAULT_COUNTS if count <= there)
    return counts if counts[-1] == max(there, 1) or len(counts) > 3 else (*counts, there)


def _find_recording(args: argparse.Namespace, library: ObjectLibrary, objects: int) -> Path:
    """The recording's file, made where it is missing."""
    if args.frames is not None:
        key = f"{args.frames.resolve()}"
    else:
        key = f"{library.keypoints_hash(list(library.objects))} {objects} {RECORDED_FRAMES}"
    path: Path = args.out / f"recording-{hashlib.sha256(key.encode()).hexdigest()[:10]}.npz"
    if not path.exists():
        if args.frames is not None:
            save_recording(path, read_scene(args.frames))
        else:
            save_recording(path, record_film(library, objects, RECORDED_FRAMES))
    return path


def _write_full_params(out: Path, config: PipelineConfig, library: ObjectLibrary) -> Path:
    folder = out / f"full-{library.name}"
    from_params = library.path.resolve()
    networks = [folder / name for name in ("full_yolo", "full_heatnet")]
    if not all((network / "manifest.yaml").exists() for network in networks):
        arguments = ["--objects", str(from_params), "--out", str(folder)]
        _run_module("heatnet_ros.training.untrained", arguments, out / "untrained.log")
    parameters = {
        "objects_file": str(from_params),
        "detector": {"model": str(networks[0].resolve())},
        "estimator": {"model": str(networks[1].resolve())},
    }
    path = out / f"pose_full_{library.name}.yaml"
    write_whole(path, yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
    return path


def _run_baseline(
    args: argparse.Namespace, library: ObjectLibrary, recording: Path, counts: Sequence[int]
) -> list[dict[str, Any]]:
    out = args.out / "baseline.json"
    arguments = [
        str(recording), "--objects", str(library.path), "--out", str(out),
        "--frames", str(args.baseline_frames), "--count", *map(str, counts),
    ]  # fmt: skip
    print("plain baseline (PyTorch eager), this takes a while", flush=True)
    _run_module("heatnet_ros.training.plain_baseline", arguments, args.out / "baseline.log")
    found: list[dict[str, Any]] = json.loads(out.read_text())["runs"]
    return found


def _list_cases(
    args: argparse.Namespace,
    config: PipelineConfig,
    params: Path,
    recording: Path,
    counts: tuple[int, ...],
) -> list[Case]:
    engines = args.engines or tuple(f"{name}:{kind}" for name, kind in list_engines())
    return [
        Case(
            params=str(params), recording=str(recording), out=str(args.out / "case.out.json"),
            backend=backend, precision=precision, mode=mode, objects=counts, frames=args.count,
            rate_hz=args.rate, stand_in=args.networks == "full",
        )
        for backend, _, precision in (engine.partition(":") for engine in engines)
        for mode in args.modes
    ]  # fmt: skip


def _run_case(out: Path, case: Case) -> list[dict[str, Any]]:
    path = out / "case.json"
    write_json(path, dataclasses.asdict(case))
    _run_module("heatnet_ros.bench.case", [str(path)], out / "case.log")
    runs: list[dict[str, Any]] = json.loads(Path(case.out).read_text())["runs"]
    return runs


def _run_module(module: str, arguments: list[str], log: Path) -> None:
    """Run a module in a process of its own. Raises EngineError with its last words."""
    with log.open("w") as file:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], stdout=file, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, check=False,
        )  # fmt: skip
    if done.returncode:
        words = log.read_text(errors="replace").strip().splitlines()[-3:]
        raise EngineError(f"{module} failed: {' / '.join(words)}. All it said is in {log}.")


def describe_hardware() -> dict[str, Any]:
    """Processor, cores, memory, system."""
    return {
        "processor": describe_processor(),
        "cores": count_cores(),
        "memory_gb": round(total_memory_gb(), 1),
        "system": platform.platform(),
    }


def list_versions() -> dict[str, str]:
    """What is installed of all that matters for speed."""
    found = {"heatnet_ros": __version__, "python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers such as 1,4,8, got '{text}'") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
