"""``python -m heatnet_ros record``: a camera's topics, or a rendered film, -> a bag."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from heatnet_ros.bags.writer import BagWriter
from heatnet_ros.errors import ConfigError
from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.progress import Progress
from heatnet_ros.rendering.demo_camera import SIZE_WH, K
from heatnet_ros.resources import find_resource
from heatnet_ros.ros.cameras import SYNTHETIC
from heatnet_ros.ros.compressed_depth import encode_depth_mm
from heatnet_ros.types import ImageU8

_TOPICS, _FRAME_ID = SYNTHETIC.topics(), SYNTHETIC.frame_id
COLOR_TOPIC = f"{_TOPICS['color/image_raw']}/compressed"
INFO_TOPIC = _TOPICS["color/camera_info"]
DEPTH_TOPIC = f"{_TOPICS['depth/image_raw']}/compressedDepth"
TRUTH_TOPIC = "/synthetic_camera/truth"
# any would do; a fixed one makes the same file every time
_START_NS = 1_700_000_000_000_000_000
# the messages of one frame arrive one after the other
_STEP_NS = 100_000
_OBJECTS_PER_SCENE = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  record lab.mcap --seconds 10 --ros-args -r color/image_raw:=/camera/camera/color/"
        "image_raw \\\n      -r color/camera_info:=... -r depth/image_raw:=...\n"
        "  record film.mcap --from synthetic --seconds 4 --rate 10   no ROS, no camera\n\n"
        "Then: replay lab.mcap, or predict lab.mcap --params config/pose_parts.yaml."
    )
    parser.add_argument("out", type=Path, metavar="OUT.mcap", help="file to write")
    parser.add_argument(
        "--from", dest="source", choices=("topics", "synthetic"), default="topics",
        help="topics: color/image_raw, color/camera_info and depth/image_raw (and their compressed "
        "forms), as pose_node names them; synthetic: a rendered film with its true poses",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=5.0, help="length (5)")
    parser.add_argument("--rate", type=float, default=10.0, help="synthetic: frames a second (10)")
    parser.add_argument("--objects", default="config/objects/demo.yaml", help="synthetic: library")
    parser.add_argument("--scenes", type=int, default=1, help="synthetic: tables laid anew (1)")
    parser.add_argument("--seed", type=int, default=0, help="synthetic: scenes follow from it (0)")
    parser.add_argument(
        "--jpeg", type=int, default=90, metavar="QUALITY", help="synthetic: of the colour (90)"
    )
    parser.add_argument(
        "--ros-args", nargs=argparse.REMAINDER, default=[], metavar="...",
        help="topics: remappings and parameters as ROS takes them; must come last",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the subcommand. Raises HeatnetError where something is missing or nothing came."""
    if args.seconds <= 0 or args.rate <= 0 or args.scenes < 1 or not 1 <= args.jpeg <= 100:
        raise ConfigError(
            "Expected --seconds > 0, --rate > 0, --scenes >= 1 and --jpeg 1 to 100, got "
            f"{args.seconds:g}, {args.rate:g}, {args.scenes}, {args.jpeg}."
        )
    if args.source == "synthetic":
        library = load_objects(find_resource(args.objects, "Object library"))
        with BagWriter(args.out) as bag:
            _film(bag, library, args)
    else:
        try:
            from heatnet_ros.ros.recorder import record_topics
        except ImportError as error:
            raise ConfigError(
                f"Recording topics needs ROS 2 ({error}): source its setup.bash, or pip install "
                "'heatnet_ros[ros]'. Without ROS: --from synthetic."
            ) from error
        with BagWriter(args.out) as bag:
            record_topics(bag, args.seconds, args.ros_args)
    for topic, count in sorted(bag.counts.items()):
        print(f"  {count:6d}  {topic}")
    print(f"Wrote {args.out} ({args.out.stat().st_size / 1e6:.2f} MB)")
    return 0


def _film(bag: BagWriter, library: ObjectLibrary, args: argparse.Namespace) -> None:
    try:
        from heatnet_ros.rendering.orbit import Film
    except ImportError as error:
        raise ConfigError(
            f"A synthetic film needs the render extra ({error}): pip install 'heatnet_ros[render]'."
        ) from error
    count = max(round(args.seconds * args.rate), 1)
    progress = Progress("record", count)
    with Film(
        library, SIZE_WH, K, seed=args.seed, rate_hz=args.rate,
        objects_per_scene=_OBJECTS_PER_SCENE, frames_per_scene=-(-count // args.scenes),
    ) as film:  # fmt: skip
        for i in range(count):
            frame = film.render(i)
            stamp_ns = _START_NS + round(i * 1e9 / args.rate)
            depth_mm = np.rint(frame.depth_m * 1000).astype(np.uint16)
            messages = [
                (INFO_TOPIC, bag.make_camera_info(stamp_ns, _FRAME_ID, K, SIZE_WH)),
                (
                    DEPTH_TOPIC,
                    bag.make_compressed(stamp_ns, _FRAME_ID, *encode_depth_mm(depth_mm)),
                ),
                (
                    COLOR_TOPIC,
                    bag.make_compressed(
                        stamp_ns,
                        _FRAME_ID,
                        "rgb8; jpeg compressed bgr8",
                        _write_jpeg(frame.rgb, args.jpeg),
                    ),
                ),
            ]
            messages += [
                (f"{TRUTH_TOPIC}/{name}", bag.make_pose(stamp_ns, _FRAME_ID, T))
                for name, T in frame.poses_true.items()
            ]
            for place, (topic, message) in enumerate(messages):
                bag.add(topic, stamp_ns + place * _STEP_NS, message)
            progress.step(f"{len(frame.poses_true)} objects")


def _write_jpeg(rgb: ImageU8, quality: int) -> bytes:
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
