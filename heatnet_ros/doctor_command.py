"""``python -m heatnet_ros doctor``: why does nothing come out? Files, camera, node."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from heatnet_ros.checks.environment import check_environment
from heatnet_ros.checks.finding import Finding, Level, ok, warning, worst
from heatnet_ros.errors import ConfigError, HeatnetError

# exit status where the doctor's own work failed: 1 and 2 are what it found
FAILED = 3
PARTS = ("files", "camera", "node")
_NEEDED = ("rclpy", "sensor_msgs", "diagnostic_msgs", "rcl_interfaces")
_EXPLAINED = """\
files    packages, parameter file, objects, models; loads each network, runs it, says where
camera   listens to the topics: publishers, QoS, rate, loss, stamps, calibration, alignment, depth
node     what pose_node says on /diagnostics: state, engines, times, why objects have no pose

Each finding is a line `level  what: evidence. Remedy.`
Exit status: 0 all is ok, 1 warnings, 2 errors (or wrong options), 3 the doctor itself failed.

examples:
  python -m heatnet_ros doctor --params config/pose_parts.yaml --camera realsense
  python -m heatnet_ros doctor --color-topic /cam/rgb/image_raw --seconds 10 --json doctor.json
  python -m heatnet_ros doctor --only files            (no ROS needed)
  python -m heatnet_ros doctor --only node --node /left/pose_node"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    from heatnet_ros.ros.cameras import CAMERAS

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXPLAINED
    parser.add_argument(
        "--params", default="config/pose_demo.yaml",
        help="the node's parameter file (config/pose_demo.yaml)",
    )  # fmt: skip
    parser.add_argument(
        "--camera", choices=tuple(CAMERAS), default="",
        help="whose topic names to listen to (default: the running node's, else realsense)",
    )  # fmt: skip
    parser.add_argument("--color-topic", default="", help="colour image, in place of the camera's")
    parser.add_argument("--camera-info-topic", default="", help="CameraInfo, likewise")
    parser.add_argument("--depth-topic", default="", help="aligned depth image, likewise")
    parser.add_argument("--node", default="", help="full name of a pose_node (default: all)")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="how long to listen to the camera (5)"
    )
    parser.add_argument(
        "--use-sim-time", action="store_true", help="compare stamps with /clock (bags, simulation)"
    )
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="this part only; may be given again"
    )
    parser.add_argument(
        "--json", "--out", type=Path, dest="out", metavar="FILE", help="write the findings there"
    )


def run(args: argparse.Namespace) -> int:
    """Check, print each finding as it is made; returns the worst level: 0, 1 or 2.

    An error of the doctor's own is no finding: ``FAILED``. Raises ConfigError for options that
    make no sense, DataError where FILE cannot be written.
    """
    try:
        return _diagnose(args)
    except (HeatnetError, OSError):
        raise
    except Exception:
        traceback.print_exc()
        return FAILED


def _diagnose(args: argparse.Namespace) -> int:
    if not 0 < args.seconds <= 600:
        raise ConfigError(f"--seconds must be above 0 and at most 600, got {args.seconds:g}.")
    findings = []
    for finding in examine(args):
        print(finding.line, flush=True)
        findings.append(finding)
    level = worst(findings)
    counts = {kind: sum(f.level is kind for f in findings) for kind in Level}
    print(
        f"{counts[Level.ERROR]} errors, {counts[Level.WARNING]} warnings, {counts[Level.OK]} ok",
        file=sys.stderr,
    )
    if args.out is not None:
        from heatnet_ros.files import write_json

        found = [finding.to_json() for finding in findings]
        write_json(args.out, {"status": level.name.lower(), "findings": found})
    return int(level)


def examine(args: argparse.Namespace) -> Iterator[Finding]:
    """All findings, in the order of the parts."""
    parts = args.only or PARTS
    environment = check_environment(backends="files" in parts)
    broken = worst(environment) is Level.ERROR
    if "files" in parts or broken:
        yield from environment
    if broken:  # nothing else would load
        return
    from heatnet_ros.checks.files import check_files, check_parameters

    parameters, finding = check_parameters(args.params)
    if "files" in parts or parameters is None:
        yield finding
    if parameters is None:
        return
    if "files" in parts:
        yield from check_files(parameters)
    if {"camera", "node"} & set(parts):
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            yield _describe_no_ros(missing, args.only)
            return
        from heatnet_ros.ros.doctor import Request, examine

        request = Request(
            args.camera, args.color_topic, args.camera_info_topic, args.depth_topic,
            args.node, args.seconds, args.use_sim_time, parts,
        )  # fmt: skip
        yield from examine(request, parameters)


def _describe_no_ros(missing: list[str], asked: list[str] | None) -> Finding:
    text = f"{', '.join(missing)} not installed for {sys.executable}: camera and node not looked at"
    if not asked:
        return ok("ros", text)
    remedy = "Source a ROS 2 installation, or pip install 'heatnet_ros[ros]'."
    return warning("ros", text, remedy)
