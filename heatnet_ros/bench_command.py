"""``python -m heatnet_ros bench``: how fast the pipeline is here, per stage, engine and object."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from heatnet_ros.bench.case import MODES, Case
from heatnet_ros.bench.hardware import describe_hardware, list_versions
from heatnet_ros.bench.processes import run_baseline, run_case, write_full_params
from heatnet_ros.bench.recording import (
    RATE_HZ,
    find_recording,
    find_scene_recording,
    load_recording,
)
from heatnet_ros.bench.table import format_stages, format_table, list_speedups
from heatnet_ros.config import EngineConfig, build_config
from heatnet_ros.engines import list_engines, require_installed
from heatnet_ros.errors import ConfigError
from heatnet_ros.files import make_folder, write_json
from heatnet_ros.machine import describe_package
from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.params_file import load_params
from heatnet_ros.progress import Progress
from heatnet_ros.resources import find_resource

DEFAULT_COUNTS = (1, 4, 8, 13)
RECORDED_FRAMES = 90
_EPILOG = """\
Every case runs in a process of its own, on the same recorded frames at 30 Hz, with the true boxes
of exactly N objects (the detector runs and its time counts; its boxes are replaced). Modes: follow
(the detector beside the poses) and detect (the detector on every frame). The recall is ADD(-S) at
0.1 diameters, averaged over the objects; what is in view and has no pose counts as wrong.

--networks full measures the published networks (YOLOv10m, HeatNet 256) with random weights: time
does not depend on what they know, their heatmaps are replaced by true ones with noise and outliers.
--baseline adds the plain way in the same run: PyTorch eager, the published networks, the detector
on every frame, one crop at a time. Both need the training extra (torch, ultralytics).

examples:
  python -m heatnet_ros bench --params config/pose_demo.yaml --objects 1,3
  python -m heatnet_ros bench --objects 5 --boxes detector --rate 0
  python -m heatnet_ros bench --roofline
  python -m heatnet_ros bench --ros --seconds 300 --objects 1
  python -m heatnet_ros bench --networks full --baseline --objects 1 --json bench.json
LINEMOD's 13 objects (--params config/pose_lm_rgbd.yaml) need their CAD models: models/README.md."""


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
    add(
        "--boxes", choices=("true", "detector"), default="true",
        help="crops from the true boxes of exactly N objects, or from the detector's own on a film "
        "of N objects: then the recall is that of the whole pipeline (true)",
    )  # fmt: skip
    add("--film-seed", type=int, default=0, metavar="N", help="another film (0)")
    add(
        "--film-frames", type=int, default=RECORDED_FRAMES, metavar="N",
        help="length of the film, which is played to and fro (%(default)s)",
    )  # fmt: skip
    add(
        "--roofline", action="store_true",
        help="measure what the machine can do at most, and how near to it each network comes",
    )  # fmt: skip
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
    make_folder(args.out)
    if args.networks == "full":
        params = write_full_params(args.out, library)
    if args.roofline:
        return run_roofline(args, params)
    work = _record(args, library)
    baseline = []
    if args.baseline:
        for recording, counts in work:
            baseline += run_baseline(args.out, library, recording, counts, args.baseline_frames)
    runs = _run_cases(args, params, work)
    document = _describe(args) | {
        "recording": "; ".join(load_recording(path).source for path, _ in work),
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


def run_roofline(args: argparse.Namespace, params: Path) -> int:
    """What the machine can do at most, and how near to it each network comes."""
    from heatnet_ros.bench.roofline import format_peaks, format_roofline, measure_roofline

    found = measure_roofline(load_params(params))
    document = _describe(args) | found
    print(f"{json.dumps(document['hardware'])}, commit {document['commit']}")
    print(format_peaks(found["peaks"]) + "\n")
    print(format_roofline(found["roofline"]))
    if args.json is not None:
        write_json(args.json, document)
    return 0


def run_ros(args: argparse.Namespace, params: Path) -> int:
    """A synthetic camera, the node and a listener in processes of their own."""
    from heatnet_ros.ros.demo import Show, play

    count = (args.objects or (1,))[0]
    show = Show(
        str(params), args.seconds, args.rate, replay=RECORDED_FRAMES, scenes=1, objects=count
    )
    report = play(show, args.out / "ros")
    memory = report["memory_mb"]
    # networks and buffers come with the first frames
    settled = memory[len(memory) // 10 :] or [report["rss_mb"]]
    part = max(1, len(settled) // 4)
    first, last = float(np.mean(settled[:part])), float(np.mean(settled[-part:]))
    run = {
        "mode": "ros", "objects": count, "rate_hz": args.rate, "seconds": args.seconds,
        "ms": report["latency_ms"], "frames": report["frames"], "poses_hz": report["rate_hz"],
        "recall_add_01d": report["recall_add_01d"], "engine": report["engine"],
        "rss_mb": report["rss_mb"],
        "memory_growth_percent": round(100 * (last / first - 1), 2),
    }  # fmt: skip
    document = _describe(args) | {"runs": [run], "baseline": [], "speedup": []}
    print(json.dumps(run, indent=1))
    if args.json is not None:
        write_json(args.json, document)
    return 0


def _check_ros(args: argparse.Namespace) -> None:
    """Refuse what --ros would not heed."""
    given = {
        "--engines": args.engines, "--modes": args.modes != MODES, "--baseline": args.baseline,
        "--networks": args.networks != "params", "--frames": args.frames,
        "--boxes": args.boxes != "true", "--roofline": args.roofline, "--rate": not args.rate,
        "--objects": args.objects is not None and len(args.objects) > 1,
    }  # fmt: skip
    wrong = [name for name, is_given in given.items() if is_given]
    if wrong:
        raise ConfigError(
            f"--ros runs the node as its parameter file says, at a rate, with one number of "
            f"objects: it does not heed {', '.join(wrong)} as given. Leave these out."
        )


def _check(args: argparse.Namespace) -> None:
    if args.ros:
        _check_ros(args)
    if min(args.count, args.baseline_frames, args.film_frames) < 1 or args.rate < 0:
        raise ConfigError(
            "--count, --baseline-frames and --film-frames must be 1 or more and --rate 0 or more, "
            f"got {args.count}, {args.baseline_frames}, {args.film_frames} and {args.rate:g}."
        )
    if args.film_seed < 0:
        raise ConfigError(f"--film-seed: expected 0 or more, got {args.film_seed}.")
    for engine in args.engines or ():
        _check_engine(engine)
    if args.boxes == "detector" and (args.networks == "full" or args.baseline):
        raise ConfigError(
            "--boxes detector with --networks full or --baseline: those detectors are untrained "
            "and find nothing. Leave --boxes out."
        )
    if args.boxes == "detector" and args.frames is not None and args.objects is not None:
        raise ConfigError(
            "--boxes detector measures all objects that --frames shows. Leave --objects out."
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


def _check_engine(engine: str) -> None:
    backend, _, precision = engine.partition(":")
    try:
        build_config(EngineConfig, {"backend": backend, "precision": precision}, f"'{engine}'")
    except ConfigError as error:
        here = ",".join(f"{name}:{kind}" for name, kind in list_engines())
        raise ConfigError(f"--engines: {error} Here run {here}.") from error
    require_installed(backend)


def _choose_counts(wanted: tuple[int, ...] | None, there: int) -> tuple[int, ...]:
    if wanted is not None:
        if min(wanted) < 1 or max(wanted) > there:
            raise ConfigError(f"--objects: expected 1 to {there}, got {','.join(map(str, wanted))}")
        return wanted
    counts = tuple(count for count in DEFAULT_COUNTS if count <= there)
    return counts if counts[-1] == max(there, 1) or len(counts) > 3 else (*counts, there)


def _record(args: argparse.Namespace, library: ObjectLibrary) -> list[tuple[Path, tuple[int, ...]]]:
    """Recordings, and the numbers of objects to measure on each."""
    counts = _choose_counts(args.objects, len(library.objects))
    film = partial(
        find_recording, args.out, library, count=args.film_frames, seed=args.film_seed
    )  # fmt: skip
    if args.boxes == "true":
        # one recording for all: a case with fewer objects leaves the others' boxes out
        scene = args.frames
        path = film(max(counts)) if scene is None else find_scene_recording(args.out, scene)
        return [(path, counts)]
    # nothing hides what the detector finds: each number needs a film of its own
    if args.frames is None:
        paths = [film(count) for count in counts]
    else:
        paths = [find_scene_recording(args.out, args.frames)]
    return [(path, (len(load_recording(path).names),)) for path in paths]


def _run_cases(
    args: argparse.Namespace, params: Path, work: Sequence[tuple[Path, tuple[int, ...]]]
) -> list[dict[str, Any]]:
    engines = args.engines or tuple(f"{name}:{kind}" for name, kind in list_engines())
    cases = [
        Case(
            params=str(params), recording=str(recording), out=str(args.out / "case.out.json"),
            backend=backend, precision=precision, mode=mode, objects=(count,), frames=args.count,
            rate_hz=args.rate, stand_in=args.networks == "full", true_boxes=args.boxes == "true",
        )
        for backend, _, precision in (engine.partition(":") for engine in engines)
        for mode in args.modes
        for recording, counts in work
        for count in counts
    ]  # fmt: skip
    progress = Progress("cases", len(cases))
    runs: list[dict[str, Any]] = []
    for case in cases:
        done = run_case(args.out, case)
        runs += done
        progress.step(f"{case.backend} {case.precision} {case.mode}: " + ", ".join(
            f"{run['objects']} objects {run['ms']['p50']:.1f} ms" for run in done
        ))  # fmt: skip
    return runs


def _describe(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "hardware": describe_hardware(), "commit": describe_package(), "versions": list_versions(),
        "params": str(args.params), "networks": args.networks,
    }  # fmt: skip


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers such as 1,4,8, got '{text}'") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
