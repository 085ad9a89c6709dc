"""The tests of ``export_cases.py``, in a process of their own.

OpenVINO and a training by torch crash each other in one process; users run them as two commands.
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.train
CASES = Path(__file__).with_name("export_cases.py")


def test_exports():
    command = [sys.executable, "-m", "pytest", "-m", "train", "-p", "no:cacheprovider", str(CASES)]
    done = subprocess.run(command, cwd=CASES.parents[3], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
