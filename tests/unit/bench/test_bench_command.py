"""The whole command, as a process of its own: a short film, every engine that is here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from child_environment import child_environment

from heatnet_ros.engines import list_engines

ROOT = Path(__file__).parents[3]


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "heatnet_ros", "bench", *map(str, arguments)],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_document_has_what_is_promised(tmp_path: Path) -> None:
    pytest.importorskip("moderngl", reason="the film needs the render extra (moderngl)")
    path = tmp_path / "bench.json"
    done = bench(
        "--params", "config/pose_demo.yaml", "--objects", "1", "--count", "5", "--json", path,
        "--film-frames", "6", "--rate", "0", "--out", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(path.read_text())
    assert set(document) >= {"hardware", "commit", "versions", "runs", "baseline", "speedup"}
    assert document["hardware"]["cores"] == len(os.sched_getaffinity(0))
    assert document["baseline"] == document["speedup"] == []
    assert document["recording"] == "film of demo, 1 objects, seed 0"
    runs = document["runs"]
    expected = [(f"{b} CPU", p, m) for b, p in list_engines() for m in ("follow", "detect")]
    assert [(run["engine"], run["precision"], run["mode"]) for run in runs] == expected
    for run in runs:
        check_run(run)
    # a printed row for each run, after the stages
    rows = done.stdout.strip().splitlines()[-len(runs) :]
    assert [row.split()[0] for row in rows] == [run["engine"].split()[0] for run in runs]


def check_run(run: dict) -> None:
    assert run["objects"] == 1 and run["frames"] == 5
    ms, stages = run["ms"], run["stages_ms"]
    assert 0 < ms["p50"] <= ms["p95"] <= ms["p99"] < 10_000
    assert set(stages) == {"detect", "estimate", "refine", "gate", "filter"}
    # medians of parts need not add up to the median of the whole, yet they come near to it
    assert 0.5 * ms["p50"] <= sum(stages.values()) <= ms["p99"] + 0.1
    assert run["rss_mb"] > 50
    # three of five frames took the median at least; the other two may have been faster
    assert 0 < run["frames_per_s"] < 5 / 3 * 1e3 / ms["p50"]
    assert run["targets"] == 5 and 0 <= run["recall_add_01d"] <= 1
    # following takes no box from the detector once it has a pose
    assert run["followed_share"] == (0 if run["mode"] == "detect" else pytest.approx(1, abs=0.5))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--engines", "caffe:fp32"], ["caffe", "expected one of auto, openvino", "Here run"]),
        (["--engines", "openvino:fp8"], ["fp8", "expected one of", "bf16", "Here run openvino:"]),
        (["--film-frames", "0"], ["--film-frames", "1 or more", "got 200, 10, 0"]),
        (["--ros", "--engines", "openvino:bf16", "--rate", "0"], ["heed --engines, --rate"]),
        (["--modes", "chase"], ["--modes: expected follow, detect, got chase"]),
        (["--boxes", "detector", "--frames", ".", "--objects", "1"], ["Leave --objects out"]),
    ],
)  # fmt: skip
def test_what_cannot_run_is_an_error_with_a_remedy(
    tmp_path: Path, arguments: list[str], told: list[str]
) -> None:
    done = bench("--params", "config/pose_demo.yaml", "--out", tmp_path / "out", *arguments)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert all(words in done.stderr for words in told), done.stderr
    assert not list(tmp_path.rglob("recording*"))  # told before anything is recorded
