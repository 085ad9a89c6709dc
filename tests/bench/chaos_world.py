"""What ``chaos.py`` plays with: the camera and the node as processes, a listener that knows the
truth, and the node's memory and threads.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from chaos_camera import DAMAGED
from chaos_options import flatten
from chaos_process import ROOT, Process, Sample, sample
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool, Trigger

from heatnet_ros.evaluate import ADD_THRESHOLD_DIAMETERS
from heatnet_ros.geometry import se3
from heatnet_ros.metrics import add_or_adds_error_m
from heatnet_ros.objects import load_objects
from heatnet_ros.params_file import load_all_params
from heatnet_ros.rendering.demo_camera import SIZE_WH, K
from heatnet_ros.rendering.orbit import Film
from heatnet_ros.resources import find_resource
from heatnet_ros.ros.cameras import SYNTHETIC
from heatnet_ros.ros.messages import stamp_to_ns
from heatnet_ros.ros.publishers import topic_names

SCENES, FRAMES_PER_SCENE = 2, 10
_NODE = "from heatnet_ros.ros.pose_node import main; main()"
_REMAPPINGS = SYNTHETIC.topics()


def record(path: Path, objects_file: str, seed: int) -> list[dict[str, np.ndarray]]:
    """Write the film (to and fro, so that nothing jumps but the scene); returns the true poses."""
    library = load_objects(find_resource(objects_file, "Object library"))
    frames = SCENES * FRAMES_PER_SCENE
    with Film(library, SIZE_WH, K, seed=seed, frames_per_scene=FRAMES_PER_SCENE) as film:
        drawn = [film.render(i) for i in range(frames)]
    drawn += drawn[-2:0:-1]
    depth_mm = [np.rint(f.depth_m * 1000).astype(np.uint16) for f in drawn]
    np.savez(path, rgb=[f.rgb for f in drawn], depth_mm=depth_mm, K=K)
    return [f.poses_true for f in drawn]


class CameraProcess:
    """``chaos_camera.py``: it can be killed, started again and told what to do wrong."""

    def __init__(self, film: Path, rate_hz: float, log_file: Path) -> None:
        self._arguments = [str(ROOT / "tests/bench/chaos_camera.py"), str(film), str(rate_hz)]
        self._log_file = log_file
        self.start()

    def start(self) -> None:
        self._process = Process(self._arguments, self._log_file, pipes=True)
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        stdout, answers = self._process.popen.stdout, self._answers
        reader = lambda: [answers.put(json.loads(line)) for line in stdout]  # noqa: E731
        threading.Thread(target=reader, daemon=True).start()

    def kill(self) -> None:
        self._process.kill()

    @property
    def alive(self) -> bool:
        return self._process.alive

    def send(self, **change: Any) -> None:
        """Change its state; nobody hears it while it is dead."""
        try:
            self._process.popen.stdin.write(json.dumps(change) + "\n")
            self._process.popen.stdin.flush()
        except OSError:
            pass

    def wait_until_good(self, timeout_s: float = 20.0) -> dict[str, Any]:
        """The answer to the latest reset; raises queue.Empty."""
        return self._answers.get(timeout=timeout_s)


@dataclass(frozen=True)
class Seen:
    """A pose that arrived: when, of which image, and whether it is right (None: not known)."""

    time_s: float
    stamp_ns: int
    right: bool | None


class Listener:
    """Hears the poses and speaks with the node's services."""

    def __init__(self, objects_file: str, truth: list[dict[str, np.ndarray]]) -> None:
        self.library = load_objects(find_resource(objects_file, "Object library"))
        self._vertices = {n: m.load_mesh().vertices_m for n, m in self.library.objects.items()}
        self._truth = truth
        self.seen: list[Seen] = []
        self.node = rclpy.create_node("chaos")
        for name, token in topic_names(list(self.library.objects)).items():
            topic = f"/pose_node/pose/{token}"
            callback = lambda m, n=name: self.seen.append(self._judge(n, m))  # noqa: E731
            self.node.create_subscription(PoseStamped, topic, callback, QoSProfile(depth=50))
        kinds = {
            "change_state": ChangeState, "get_state": GetState, "set_parameters": SetParameters,
            "set_parameters_atomically": SetParametersAtomically,
            "reset": Trigger, "track": SetBool,
        }  # fmt: skip
        self.requests = {name: kind.Request for name, kind in kinds.items()}
        self.clients = {
            name: self.node.create_client(kind, f"/pose_node/{name}")
            for name, kind in kinds.items()
        }
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._executor.shutdown()
        self._thread.join(5)
        self.node.destroy_node()

    def _judge(self, name: str, message: PoseStamped) -> Seen:
        stamp_ns, now_s = stamp_to_ns(message.header.stamp), time.monotonic()
        index = stamp_ns % 1000
        if index == DAMAGED:
            return Seen(now_s, stamp_ns, False)
        T_true = self._truth[index].get(name) if index < len(self._truth) else None
        if T_true is None:
            return Seen(now_s, stamp_ns, None)
        p, q = message.pose.position, message.pose.orientation
        R = se3.rotation_from_quaternion(np.array([q.x, q.y, q.z, q.w]))
        T = se3.make_transform(R, np.array([p.x, p.y, p.z]))
        model = self.library[name]
        error_m = add_or_adds_error_m(T, T_true, self._vertices[name], model.symmetries)
        return Seen(now_s, stamp_ns, error_m < ADD_THRESHOLD_DIAMETERS * model.diameter_m)

    def call(self, name: str, request: Any, timeout_s: float = 15.0) -> Any:
        """The answer of a service, or None: there was none in time."""
        client = self.clients[name]
        if not client.wait_for_service(timeout_s):
            return None
        future = client.call_async(request)
        deadline_s = time.monotonic() + timeout_s
        while not future.done() and time.monotonic() < deadline_s:
            time.sleep(0.005)
        if not future.done():
            client.remove_pending_request(future)
        return future.result() if future.done() else None

    def state(self) -> str:
        answer = self.call("get_state", GetState.Request(), 5.0)
        return "silent" if answer is None else str(answer.current_state.label)

    def change_state(self, **transition: Any) -> bool:
        request = ChangeState.Request(transition=Transition(**transition))
        answer = self.call("change_state", request)
        return answer is not None and bool(answer.success)

    def set_parameters(self, values: Mapping[str, Any]) -> bool:
        """Whether all were accepted."""
        messages = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        answer = self.call("set_parameters", SetParameters.Request(parameters=messages))
        return answer is not None and all(result.successful for result in answer.results)

    def wait_for(self, condition: Callable[[], Any], timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.005)
        return True


class World:
    """Camera, node and listener; ``defaults``: every parameter of the node, as it was started."""

    def __init__(self, params: str, out: Path, rate_hz: float, seed: int) -> None:
        config = load_all_params(find_resource(params, "Parameter file"))
        self.defaults, objects_file = flatten(*config), config[1].objects_file
        truth = record(out / "film.npz", objects_file, seed)
        self.node_log = out / "node.log"
        self.node_log.write_text("")
        self.watched = Counter[str]()  # messages to those who come and go
        self.at_rest: list[Sample] = []  # the node after each cleanup
        rclpy.init(args=[])
        self.listener = Listener(objects_file, truth)
        self.objects = list(self.listener.library.objects)
        remap = [word for a, b in _REMAPPINGS.items() for word in ("-r", f"{a}:={b}")]
        self.node = Process(
            ["-c", _NODE, "--ros-args", "--params-file", params, *remap], self.node_log
        )
        self.camera = CameraProcess(out / "film.npz", rate_hz, out / "camera.log")

    def sample(self) -> Sample | None:
        return sample(self.node.popen.pid)

    def rest(self) -> None:
        """The node is unconfigured: what it has now it has for good."""
        self.at_rest += [taken for taken in (self.sample(),) if taken is not None]

    def threads(self) -> list[str]:
        """Names of the node's threads."""
        tasks = Path(f"/proc/{self.node.popen.pid}/task").glob("*/comm")
        return sorted(task.read_text().strip() for task in tasks)

    def stop_node(self, limit_s: float) -> tuple[float | None, int | None, list[int]]:
        """SIGINT; seconds until its end or None, its exit status, and who is left of its group."""
        began_s = time.monotonic()
        self.node.popen.send_signal(signal.SIGINT)
        try:
            status = self.node.popen.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None, None, self.node.group()
        return time.monotonic() - began_s, status, self.node.group()

    def close(self) -> None:
        self.camera.kill()
        self.node.kill()
        self.listener.stop()
        rclpy.try_shutdown()
