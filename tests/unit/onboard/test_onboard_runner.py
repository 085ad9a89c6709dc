"""Real processes: small modules written by the test and run as ``python -m``."""

import io
import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from child_environment import child_environment

from heatnet_ros.errors import DataError
from heatnet_ros.onboard import runner
from heatnet_ros.onboard.runner import (
    MARK,
    Job,
    Status,
    StepError,
    last_line,
    run_jobs,
    stop_leftovers,
)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that a job can run: name, source -> the job."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def write(name: str, source: str, **env: str) -> Job:
        (folder / f"{name}.py").write_text(source)
        return Job(name, (name, "an argument"), tmp_path / "logs" / f"{name}.log", env)

    return write


def run(jobs, tmp_path, stream=None) -> list[float]:
    return run_jobs(jobs, tmp_path / "run", Status(stream or io.StringIO()))


def wait_for(path: Path) -> str:
    limit_s = time.monotonic() + 20
    while time.monotonic() < limit_s:
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{path} never appeared")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def has_ended(pid: int) -> bool:
    limit_s = time.monotonic() + 15
    while is_alive(pid) and time.monotonic() < limit_s:
        time.sleep(0.05)
    return not is_alive(pid)


def test_jobs_run_side_by_side_with_arguments_environment_and_log(module, tmp_path):
    source = (
        "import os, sys, time\n"
        "import heatnet_ros\n"
        "time.sleep(0.6)\n"
        "print(sys.argv[1], os.environ['WORD'])\n"
    )
    jobs = [module("first", source, WORD="one"), module("second", source, WORD="two")]
    started_s = time.monotonic()
    seconds = run(jobs, tmp_path)
    assert time.monotonic() - started_s < sum(seconds)
    assert min(seconds) >= 0.6
    assert jobs[0].log.read_text() == (
        "$ WORD=one python -m first 'an argument'\nan argument one\n"
    )
    assert jobs[1].log.read_text().endswith("an argument two\n")


def test_a_failing_job_is_told_with_its_error_and_stops_the_others(module, tmp_path):
    patient = module(
        "patient",
        "import os, pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "time.sleep(60)\n",
    )
    failing = module(
        "failing",
        "import pathlib, sys, time\n"
        f"path = pathlib.Path({str(tmp_path / 'pid')!r})\n"
        "while not (path.exists() and path.read_text()):\n    time.sleep(0.02)\n"
        "print('error: Mesh x.ply has no faces.')\n"
        "print('something else')\n"
        "sys.exit(1)\n",
    )
    started_s = time.monotonic()
    with pytest.raises(StepError, match=r"'failing' ended with exit status 1: Mesh x\.ply has no"):
        run([patient, failing], tmp_path)
    assert time.monotonic() - started_s < 30
    assert has_ended(int((tmp_path / "pid").read_text()))


def test_only_the_last_run_in_a_log_is_told(module, tmp_path):
    job = module("failing", "import sys\nprint('last words')\nsys.exit(7)\n")
    job.log.parent.mkdir()
    job.log.write_text("$ python -m failing\nerror: of an earlier run\n")
    with pytest.raises(StepError, match=r"exit status 7: last words\. All it said is in") as caught:
        run([job], tmp_path)
    assert "earlier" not in str(caught.value)


def test_a_killed_job_is_told_as_such(module, tmp_path):
    job = module("killed", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(StepError, match=r"killed by signal 9 \(out of memory\?\): it said nothing"):
        run([job], tmp_path)


def test_workers_of_a_job_that_ended_are_ended(module, tmp_path):
    job = module(
        "parent",
        "import pathlib, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n",
    )
    run([job], tmp_path)
    assert has_ended(int((tmp_path / "pid").read_text()))


def test_a_log_that_cannot_be_written_is_an_error_of_ours(module, tmp_path):
    job = module("first", "")
    (tmp_path / "logs").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="Step 'first' cannot be started"):
        run([job], tmp_path)


_PARENT = """
import sys
from pathlib import Path
from heatnet_ros.onboard.runner import Job, Status, run_jobs
folder = Path(sys.argv[1])
run_jobs([Job("stubborn", ("stubborn",), folder / "log")], folder, Status())
"""
_STUBBORN = """
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(os.environ["PID_FILE"]).write_text(str(os.getpid()))
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_what_a_killed_onboarding_left_running_is_ended_and_nothing_else(module, tmp_path):
    module("stubborn", _STUBBORN)
    others = module("others", "import time\ntime.sleep(60)\n")
    folder, other_folder = tmp_path / "run", tmp_path / "run2"
    folder.mkdir()
    pid_file = tmp_path / "pid"
    env = child_environment(PID_FILE=str(pid_file))
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(folder)], env=env)
    other = subprocess.Popen(
        [sys.executable, "-m", others.arguments[0]], env=env | {MARK: str(other_folder.resolve())}
    )
    try:
        pid = int(wait_for(pid_file))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert is_alive(pid)
        assert stop_leftovers(folder) == 1
        assert has_ended(pid)
        assert other.poll() is None
    finally:
        for process in (parent, other):
            process.kill()
            process.wait()


def test_a_job_without_tricks_ends_with_its_killed_parent(module, tmp_path):
    module("stubborn", _STUBBORN.replace("signal.signal(", "# "))
    folder, pid_file = tmp_path / "run", tmp_path / "pid"
    folder.mkdir()
    env = child_environment(PID_FILE=str(pid_file))
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(folder)], env=env)
    pid = int(wait_for(pid_file))
    parent.kill()
    parent.wait()
    assert has_ended(pid)


def test_the_last_line_is_the_newest_that_says_something(tmp_path):
    log = tmp_path / "log"
    assert last_line(log) == "starting"
    log.write_text("$ python -m x\n")
    assert last_line(log) == "starting"
    log.write_text("$ python -m x\n 10 %\r 20 %\r\n\n")
    assert last_line(log) == "20 %"


def test_status_tells_now_and_then_what_jobs_said_last(module, tmp_path):
    job = module("slow", "import time\nprint('half done', flush=True)\ntime.sleep(1.0)\n")
    stream = io.StringIO()
    run_jobs([job], tmp_path / "run", Status(stream), "about 3 min left")
    # one line in half a minute where it is no terminal
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("slow: ") and line.endswith(" | about 3 min left")


def test_what_must_not_be_lost_is_noted_meanwhile(module, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "NOTE_EVERY_S", 0.5)
    job = module("slow", "import time; time.sleep(2.2)")
    noted: list[float] = []
    run_jobs(
        [job], tmp_path / "run", Status(io.StringIO()), note=lambda: noted.append(time.monotonic())
    )
    assert len(noted) >= 2
    assert min(b - a for a, b in itertools.pairwise(noted)) >= 0.5
