"""Where the memory of a node in a process of its own lies, from configure to cleanup."""

import ctypes
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rclpy
from bench import Spinner
from child_environment import child_environment
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from heatnet_ros.ros.child import _die_with_parent

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "bench"))
from chaos_process import sample  # noqa: E402

# the node as it is, and a thread that answers every line with what glibc tells: it must not start
# before main has set the number of heaps
PROGRAM = """
import ctypes, pathlib, sys, threading
libc, file = ctypes.CDLL(None), pathlib.Path(sys.argv.pop(1))
libc.fopen.restype, libc.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.malloc_info.argtypes = ctypes.c_int, ctypes.c_void_p
def answer():
    for _ in sys.stdin:
        stream = libc.fopen(str(file).encode(), b"w")
        libc.malloc_info(0, stream)
        libc.fclose(stream)
        print(file.read_text().count("<heap nr="), flush=True)
from heatnet_ros.ros.memory import share_one_heap
def share_and_listen():
    share_one_heap()
    threading.Thread(target=answer, daemon=True).start()
from heatnet_ros.ros import pose_node
pose_node.share_one_heap = share_and_listen
pose_node.main()
"""


class Node:
    """pose_node with the demo's networks, unconfigured at first."""

    def __init__(self, folder):
        namespace = f"/memory_{os.getpid()}"
        arguments = ["--params-file", str(ROOT / "config/pose_demo.yaml"), "-p", "autostart:=false"]
        arguments += ["-r", f"__ns:={namespace}"]
        self.log = folder / "node.log"
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder / "heaps.xml"), "--ros-args", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log.open("wb"), text=True,
            cwd=ROOT, env=child_environment(), preexec_fn=_die_with_parent,
        )  # fmt: skip
        self.own = Spinner(rclpy.create_node("memory", namespace=namespace))
        self.client = self.own.node.create_client(ChangeState, "pose_node/change_state")

    def change_state(self, label):
        assert self.client.wait_for_service(30)
        request = ChangeState.Request(transition=Transition(label=label))
        future = self.client.call_async(request)
        deadline_s = time.monotonic() + 30
        while not future.done():
            assert time.monotonic() < deadline_s, label
            time.sleep(0.01)
        assert future.result().success, label

    def count_heaps(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answers, _, _ = select.select([self.process.stdout], [], [], 10)
        assert answers, self.log.read_text()
        return int(self.process.stdout.readline())

    def memory_mb(self):
        return sample(self.process.pid).rss_mb

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.own.stop()


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_info"), reason="the C library is not glibc"
)
def test_the_node_has_one_heap_and_gives_back_what_networks_took(ros, tmp_path):
    node = Node(tmp_path)
    try:
        for _ in range(2):
            node.change_state("configure")
            assert node.count_heaps() == 1
            configured_mb = node.memory_mb()
            node.change_state("cleanup")
            assert node.memory_mb() < configured_mb - 60  # the demo's weights
    finally:
        node.stop()
