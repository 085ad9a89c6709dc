"""What keeps a node small: glibc's heaps, OpenBLAS's threads."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
needs_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_info"), reason="the C library is not glibc"
)


def run(program: str, *arguments: str) -> str:
    """Its standard output."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


HEAPS = """
import ctypes, sys, threading
from heatnet_ros.ros.memory import give_back, limit_heaps
if sys.argv[1] == "limited":
    limit_heaps()
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


@needs_glibc
@pytest.mark.parametrize(("how", "low", "high"), [("limited", 1, 2), ("free", 4, 100)])
def test_threads_share_two_heaps(tmp_path, how, low, high):
    out = tmp_path / "heaps.xml"
    run(HEAPS, how, str(out))
    assert low <= out.read_text().count("<heap nr=") <= high


LARGE_BLOCK = """
import ctypes, sys
from heatnet_ros.ros.memory import limit_heaps
if sys.argv[1] == "limited":
    limit_heaps()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def resident_mb():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 / 2**20
def fill(megabytes):
    block = libc.malloc(megabytes * 2**20)
    ctypes.memset(block, 1, megabytes * 2**20)
    return block
libc.free(fill(30))  # a network that goes
before = resident_mb()
image, pin = fill(4), libc.malloc(100_000)  # something small that stays lies behind the image
libc.free(image)
print(resident_mb() - before)
"""


@needs_glibc
@pytest.mark.parametrize(("how", "low", "high"), [("limited", -1.0, 1.0), ("free", 3.5, 6.0)])
def test_large_blocks_are_given_back_whatever_lies_behind_them(how, low, high):
    assert low < float(run(LARGE_BLOCK, how)) < high


THREADS = """
import os
import heatnet_ros.ros.memory
import numpy as np
a = np.ones((1500, 1500))
before = len(os.listdir("/proc/self/task"))
a @ a
print(before, len(os.listdir("/proc/self/task")))
"""


def test_a_large_product_of_numpy_starts_no_thread():
    before, after = map(int, run(THREADS).split())
    assert before == after == 1


def test_the_user_decides_about_the_threads_of_numpy(monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "OPENBLAS_NUM_THREADS", "2")
    program = "import os, heatnet_ros.ros; print(os.environ['OPENBLAS_NUM_THREADS'])"
    assert run(program).strip() == "2"
