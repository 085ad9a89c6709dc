"""``python -m heatnet_ros demo``: camera, node and monitor as three processes, and a verdict."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from heatnet_ros.errors import ConfigError, EngineError
from heatnet_ros.files import make_folder, write_json
from heatnet_ros.params_file import load_params
from heatnet_ros.resources import find_resource
from heatnet_ros.ros.cameras import CAMERAS
from heatnet_ros.ros.child import Child
from heatnet_ros.ros.status_line import StatusLine

_START_LIMIT_S = 60.0
_FINISH_LIMIT_S = 30.0
# the node reports its counters once a second
_LAST_REPORT_S = 2.2
_MEMORY_EVERY_S = 5.0
_REMAPPINGS = CAMERAS["synthetic"].topics()
_MIDDLEWARE = "rmw_fastrtps_cpp"
_NEEDED = {
    "rclpy": "ros",
    "visualization_msgs": "ros",
    "diagnostic_msgs": "ros",
    "moderngl": "render",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the film (20)")
    parser.add_argument("--rate", type=float, default=10.0, help="frames per second (10)")
    parser.add_argument(
        "--replay", type=int, default=0, metavar="N",
        help="draw N frames beforehand and repeat them, for rates faster than this machine draws",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder to write")
    parser.add_argument(
        "--params", default="config/pose_demo.yaml", help="parameter file (config/pose_demo.yaml)"
    )
    parser.add_argument("--seed", type=int, default=0, help="scenes follow from it (0)")


def run(args: argparse.Namespace) -> int:
    """Run the demo. Returns 1 when an object that was to be seen got no pose.

    Writes ``report.json``, ``overlay.png`` and the logs of the three processes. Raises ConfigError
    or EngineError when something is missing or a process ends too early.
    """
    report = play(
        Show(args.params, args.seconds, args.rate, replay=args.replay, seed=args.seed), args.out
    )
    print((args.out / "monitor.log").read_text().rstrip())
    print(f"node memory {report['rss_mb']:.0f} MB at most")
    print(f"Wrote {args.out}/report.json and {args.out}/overlay.png")
    return _judge(report)


@dataclass(frozen=True)
class Show:
    """What is played: ``rate`` frames a second; ``replay`` frames drawn beforehand, 0: live.

    scenes: how often the table is laid anew. objects: on the table.
    """

    params: str
    seconds: float
    rate: float
    replay: int = 0
    seed: int = 0
    scenes: int = 5
    objects: int = 3


def play(show: Show, out: Path) -> dict[str, Any]:
    """Camera, node and monitor until the last frame; the monitor's report with ``rss_mb`` (most)
    and ``memory_mb`` (the node's, every few seconds). Raises as ``run`` does.
    """
    if show.seconds <= 0 or show.rate <= 0:
        raise ConfigError(
            f"--seconds and --rate must be > 0, got {show.seconds:g} and {show.rate:g}."
        )
    _check_installed()
    params_file = find_resource(show.params, "Parameter file")
    objects_file = load_params(params_file).objects_file
    make_folder(out)
    live_file, overlay_file = out / "live.json", out / "overlay.png"
    for stale in (live_file, overlay_file, out / "report.json"):
        stale.unlink(missing_ok=True)
    frames = max(round(show.seconds * show.rate), 1)
    environment = _environment()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    with ExitStack() as stack:

        def start(name: str, module: str, *ros_args: str) -> Child:
            child = Child(name, module, ros_args, out / f"{name}.log", environment)
            return stack.enter_context(child)

        status = stack.enter_context(StatusLine(sys.stdout))
        print(f"Starting camera, node and monitor. Logs: {out}/*.log", flush=True)
        camera = start(
            "camera", "heatnet_ros.ros.synthetic_camera",
            *_parameters(objects_file=objects_file, rate_hz=float(show.rate), frames=frames),
            *_parameters(seed=show.seed, frames_per_scene=max(frames // show.scenes, 1)),
            *_parameters(wait_for_truth=True, replay=show.replay),
            *_parameters(objects_per_scene=show.objects),
        )  # fmt: skip
        node = start(
            "node", "heatnet_ros.ros.pose_node", "--params-file", str(params_file),
            *(word for a, b in _REMAPPINGS.items() for word in ("-r", f"{a}:={b}")),
        )  # fmt: skip
        monitor = start(
            "monitor", "heatnet_ros.ros.monitor",
            *_parameters(objects_file=objects_file, report_file=str(live_file)),
            *_parameters(overlay_file=str(overlay_file)),
        )  # fmt: skip
        children = [camera, node, monitor]
        _wait_for_first_frame(status, live_file, children)
        memory_mb = _wait_for_last_frame(status, live_file, frames, show.rate, children)
        rss_mb = node.peak_memory_mb()
        status.end()
        print("Scoring the last poses and drawing the overlay.", flush=True)
        monitor.stop(_FINISH_LIMIT_S)
    report = _read(live_file) | {"rss_mb": rss_mb, "memory_mb": memory_mb}
    live_file.unlink()
    write_json(out / "report.json", report)
    return report


def _check_installed() -> None:
    needed = _NEEDED
    if not os.environ.get("ROS_DISTRO"):
        # a Python package in the wheels only; in a ROS installation it is a library
        needed = _NEEDED | {_MIDDLEWARE: "ros"}
    for module, extra in needed.items():
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"The demo needs the Python package '{module}', which {sys.executable} does not "
                f"have. Run `make demo`, source a ROS 2 installation, or "
                f"pip install 'heatnet_ros[{extra}]'."
            )


def _environment() -> dict[str, str]:
    """Of the children: Fast DDS, whose profile for large images the camera sets for itself.

    A domain of its own on this host only: robots on the network neither see nor disturb it.
    """
    return os.environ | {
        "RMW_IMPLEMENTATION": _MIDDLEWARE,
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parameters(**values: Any) -> list[str]:
    return [word for k, v in values.items() for word in ("-p", f"{k}:={json.dumps(v)}")]


def _read(path: Path) -> dict[str, Any]:
    """The monitor's report, or nothing yet; it replaces the file whole."""
    if not path.exists():
        return {}
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _wait_for_first_frame(status: StatusLine, live_file: Path, children: list[Child]) -> None:
    started_s = time.monotonic()
    while not _read(live_file).get("frames", {}).get("published"):
        passed_s = time.monotonic() - started_s
        status.show(f"loading networks, finding each other  {passed_s:.0f} s")
        if passed_s > _START_LIMIT_S:
            logs = "\n".join(child.describe_log() for child in children)
            raise EngineError(f"No frame after {_START_LIMIT_S:.0f} s.\n{logs}")
        _check_alive(children)
        time.sleep(0.2)


def _wait_for_last_frame(
    status: StatusLine, live_file: Path, frames: int, rate_hz: float, children: list[Child]
) -> list[float]:
    """Returns the node's memory in MB, every few seconds."""
    camera, *others = children
    memory_mb: list[float] = []
    noted_s = time.monotonic()
    # a slow machine draws slower than the rate
    deadline_s = time.monotonic() + 5 * frames / rate_hz + _START_LIMIT_S
    while camera.is_running:
        live = _read(live_file)
        done = live.get("frames", {}).get("published", 0)
        status.show_bar(done / frames, f"{done}/{frames} frames  {_live_numbers(live)}")
        _check_alive(others)
        if time.monotonic() - noted_s >= _MEMORY_EVERY_S:
            noted_s = time.monotonic()
            memory_mb.append(others[0].memory_mb())
        if time.monotonic() > deadline_s:
            raise EngineError(f"The camera does not finish.\n{camera.describe_log()}")
        time.sleep(0.2)
    camera.check()
    settle_s = time.monotonic() + _LAST_REPORT_S
    while time.monotonic() < settle_s:
        live = _read(live_file)
        status.show_bar(1.0, f"waiting for the last poses  {_live_numbers(live)}")
        time.sleep(0.2)
    _check_alive(others)
    return memory_mb


def _live_numbers(live: dict[str, Any]) -> str:
    if not live:
        return ""
    poses = sum(entry["poses"] for entry in live["objects"].values())
    recall, latency = live["recall_add_01d"], live["latency_ms"]["p50"]
    text = f"{poses} poses"
    text += f"  recall {recall:.2f}" if recall is not None else ""
    return text + (f"  latency {latency:.0f} ms" if latency is not None else "")


def _check_alive(children: list[Child]) -> None:
    for child in children:
        if not child.is_running:
            raise EngineError(f"The {child.name} ended too early.\n{child.describe_log()}")


def _judge(report: dict[str, Any]) -> int:
    frames, objects = report["frames"], report["objects"]
    if frames["dropped"] > 0.05 * frames["published"]:
        print(
            f"{frames['dropped']} of {frames['published']} frames were dropped: this machine is "
            "slower than the camera, and a dropped frame counts as missed. Try a lower --rate."
        )
    silent = [name for name, entry in objects.items() if not entry["poses"]]
    if silent or not objects:
        print(f"FAILED: no pose of {', '.join(silent) or 'any object'}. See node.log.")
        return 1
    return 0
