"""glibc's heaps: one for each thread of a node, or two for all."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import ctypes, sys, threading
from heatnet_ros.ros.memory import give_back, limit_arenas
if sys.argv[1] == "limited":
    limit_arenas()
libc, gate = ctypes.CDLL(None), threading.Barrier(8)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = ctypes.c_int, ctypes.c_void_p
def work():
    gate.wait()
    libc.malloc(100_000)
    gate.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
give_back()
libc.malloc_info(0, libc.fopen(sys.argv[2].encode(), b"w"))
libc.fflush(None)
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_info"), reason="the C library is not glibc"
)
@pytest.mark.parametrize(("how", "low", "high"), [("limited", 1, 2), ("free", 4, 100)])
def test_threads_share_two_heaps(tmp_path, how, low, high):
    out = tmp_path / "heaps.xml"
    subprocess.run([sys.executable, "-c", PROGRAM, how, str(out)], cwd=ROOT, check=True)
    assert low <= out.read_text().count("<heap nr=") <= high
