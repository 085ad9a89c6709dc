"""The short version of the mutation run: ``python tests/bench/mutate.py`` is the long one."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

from child_environment import child_environment

ROOT = Path(__file__).resolve().parents[3]


def mutate(report, *arguments):
    done = subprocess.run(
        [sys.executable, "tests/bench/mutate.py", *arguments, "--json", str(report)],
        cwd=ROOT, env=child_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(report.read_text())


def test_no_mutated_message_gets_through_or_breaks_anything(tmp_path):
    found = mutate(tmp_path / "report.json", "--count", "3000")
    counts = found["counts"]
    assert counts["refused"] == counts["damaged"] > 2000
    assert counts["good"] == 300, "a good frame gets through after any of them"
    assert counts["harmless through"] > 300, "what is no damage is not refused"
    mutations = {name for name in counts if " of " in name}
    assert len(mutations) > 40, mutations


def test_every_type_of_message_is_mutated(tmp_path):
    """Also what one would forget: each encoding, byte order and compression has its share."""
    rows = mutate(tmp_path / "report.json", "--count", "100", "--each")["by_type"]
    colors = {"rgb8", "bgr8", "rgba8", "bgra8", "mono8", "padded", "jpg", "png"}
    depths = {f"{name}{order}" for name in ("16UC1", "mono16", "32FC1") for order in "<>"}
    compressed = itertools.product(("16UC1", "32FC1"), ("png", "rvl"))
    depths |= {f"{name}; compressedDepth {kind}" for name, kind in compressed}
    assert set(rows) == colors | depths | {"camera_info"}
    for name, row in rows.items():
        assert row["mutated"] == 100 and row["refused"] == row["damaged"] > 50, (name, row)
