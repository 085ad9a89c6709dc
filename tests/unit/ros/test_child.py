import io
import time

import pytest
from child_environment import child_environment

from heatnet_ros.errors import EngineError
from heatnet_ros.ros.child import Child
from heatnet_ros.ros.status_line import StatusLine


def start(tmp_path, code):
    (tmp_path / "program_of_test.py").write_text(code)
    environment = child_environment(tmp_path)
    return Child("program", "program_of_test", ["-p", "a:=1"], tmp_path / "log", environment)


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_child_gets_its_arguments_and_writes_its_log(tmp_path):
    with start(tmp_path, "import sys\ndef main():\n  print(sys.argv[1:])") as child:
        wait_until(lambda: not child.is_running)
        child.check()
    assert (tmp_path / "log").read_text().strip() == "['--ros-args', '-p', 'a:=1']"


def test_failure_shows_the_end_of_the_log(tmp_path):
    code = "def main():\n  for i in range(50): print('line', i)\n  return 3"
    with start(tmp_path, code) as child:
        wait_until(lambda: not child.is_running)
        with pytest.raises(EngineError, match="line 49") as error:
            child.check()
    assert "line 10" not in str(error.value)
    assert str(tmp_path / "log") in str(error.value)


def test_a_child_that_ignores_the_request_is_killed(tmp_path):
    code = (
        "import signal, time\n"
        "def main():\n"
        "  signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "  print('deaf', flush=True)\n"
        "  time.sleep(100)"
    )
    with start(tmp_path, code) as child:
        wait_until(lambda: "deaf" in (tmp_path / "log").read_text())
        began = time.monotonic()
        child.stop(0.3)
        assert not child.is_running
    assert 0.25 < time.monotonic() - began < 5


def test_memory_is_the_peak(tmp_path):
    code = (
        "import time\n"
        "def main():\n"
        "  a = bytearray(200_000_000); del a\n"
        "  print('done', flush=True); time.sleep(100)"
    )
    with start(tmp_path, code) as child:
        wait_until(lambda: "done" in (tmp_path / "log").read_text())
        assert 200 < child.peak_memory_mb() < 600
        assert 1 < child.memory_mb() < child.peak_memory_mb() - 100


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_status_is_renewed_in_place_on_a_terminal():
    stream = Terminal()
    with StatusLine(stream) as status:
        status.show("one")
        status.show_bar(0.5, "half")
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("\n")
    assert "\rone" in stream.getvalue() and "[############............] half" in stream.getvalue()


def test_a_log_gets_few_lines():
    stream = io.StringIO()
    with StatusLine(stream) as status:
        for i in range(100):
            status.show(f"state {i}")
    assert stream.getvalue() == "state 0\n"
