"""What keeps a node small: one of glibc's heaps, no threads of OpenBLAS."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from heatnet_ros.machine import count_cores

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
from heatnet_ros.ros.memory import give_back, share_one_heap
if sys.argv[1] == "shared":
    share_one_heap()
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
@pytest.mark.parametrize(("how", "low", "high"), [("shared", 1, 1), ("free", 4, 100)])
def test_threads_share_one_heap(tmp_path, how, low, high):
    out = tmp_path / "heaps.xml"
    run(HEAPS, how, str(out))
    assert low <= out.read_text().count("<heap nr=") <= high


LARGE_BLOCK = """
import ctypes, sys
from heatnet_ros.ros.memory import share_one_heap
if sys.argv[1] == "shared":
    share_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def resident_mb():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 / 2**20
def fill(megabytes):
    block = libc.malloc(megabytes * 2**20)
    ctypes.memset(block, 1, megabytes * 2**20)
    return block
libc.free(fill(30))
before = resident_mb()
block, pin = fill(int(sys.argv[2])), libc.malloc(100_000)  # what stays lies behind the block
libc.free(block)
print(resident_mb() - before)
"""


@needs_glibc
@pytest.mark.parametrize(
    ("how", "block_mb", "kept_mb"),
    [("free", 20, 20), ("shared", 20, 0), ("shared", 8, 8)],  # 8: a 1080p image costs no faults
)
def test_what_a_large_block_leaves_in_the_heap(how, block_mb, kept_mb):
    assert float(run(LARGE_BLOCK, how, str(block_mb))) == pytest.approx(kept_mb, abs=1.0)


THREADS = """
import os, sys
from heatnet_ros.ros.pose_node import main
assert not {"numpy", "cv2", "rclpy"} & set(sys.modules)
try:
    main(["--help"])
except SystemExit:
    pass
import numpy as np
a = np.ones((1500, 1500))
a @ a
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(count_cores() < 2, reason="OpenBLAS needs a second core")
def test_numpy_starts_no_threads_in_the_node_unless_the_user_says_so(monkeypatch):
    unsaid = int(run(THREADS).splitlines()[-1])
    monkeypatch.setitem(ENVIRONMENT, "OPENBLAS_NUM_THREADS", "2")
    assert int(run(THREADS).splitlines()[-1]) > unsaid
