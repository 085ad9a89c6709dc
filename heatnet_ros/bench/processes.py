"""Bench's work in processes of its own: cases, the plain baseline, the untrained networks."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from heatnet_ros.bench.case import Case
from heatnet_ros.errors import EngineError
from heatnet_ros.files import write_json, write_whole
from heatnet_ros.objects import ObjectLibrary


def run_case(out: Path, case: Case) -> list[dict[str, Any]]:
    """Entries of bench's ``runs``. Raises EngineError with the last words of the process."""
    path = out / "case.json"
    write_json(path, dataclasses.asdict(case))
    _run_module("heatnet_ros.bench.case", [str(path)], out / "case.log")
    runs: list[dict[str, Any]] = json.loads(Path(case.out).read_text())["runs"]
    return runs


def run_baseline(
    out: Path, library: ObjectLibrary, recording: Path, counts: Sequence[int], frames: int
) -> list[dict[str, Any]]:
    """Entries of bench's ``baseline``. Raises EngineError with the last words of the process."""
    result = out / "baseline.json"
    arguments = [
        str(recording), "--objects", str(library.path), "--out", str(result),
        "--frames", str(frames), "--count", *map(str, counts),
    ]  # fmt: skip
    print("plain baseline (PyTorch eager), this takes a while", flush=True)
    _run_module("heatnet_ros.training.plain_baseline", arguments, out / "baseline.log")
    found: list[dict[str, Any]] = json.loads(result.read_text())["runs"]
    return found


def write_full_params(out: Path, library: ObjectLibrary) -> Path:
    """A parameter file of the published networks, untrained, which are made where missing."""
    # other keypoints need other networks
    folder = out / f"full-{library.name}-{library.keypoints_hash(list(library.objects))[:8]}"
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
