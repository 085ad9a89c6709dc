"""The short version of the mutation run: ``python tests/bench/mutate.py`` is the long one."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_no_mutated_message_gets_through_or_breaks_anything(tmp_path):
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "tests/bench/mutate.py", "--count", "3000", "--json", str(report)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    counts = found["counts"]
    assert counts["refused"] == counts["damaged"] > 2000
    assert counts["good"] == 300, "a good frame gets through after any of them"
    assert counts["harmless through"] > 300, "what is no damage is not refused"
    mutations = {name for name in counts if " of " in name}
    assert len(mutations) > 40, mutations
