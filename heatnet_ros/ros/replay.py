"""``python -m heatnet_ros replay``: recorded images -> topics, as a camera would publish them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from heatnet_ros.bags.choice import add_topic_arguments
from heatnet_ros.bags.sample import find_recording
from heatnet_ros.errors import ConfigError, HeatnetError
from heatnet_ros.image_inputs import add_calibration_arguments, check_depth_scale

# subscriptions of one node are found one after the other
_SETTLE_S = 0.5
_EXAMPLES = """\
examples:
  replay sample --loop                       in one terminal, and in another
  pose_node --ros-args --params-file config/pose_demo.yaml
  replay pictures --fps 30 --camera 615,615,320,240     rgb/*.png and depth/*.png (millimetres)
  replay lab.mcap --rate 0.5 --stamps now    half speed, stamped as if it were seen now
  replay lab.mcap --clock                    recorded stamps; pose_node with -p use_sim_time:=true
  replay lab.mcap --ros-args -r __ns:=/left  for a pose_node in the namespace /left

Published are color/image_raw, color/camera_info and depth/image_raw, the names that pose_node
listens to, and under their own names true poses where the bag holds them (.../truth/<object>)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "input", type=Path, metavar="INPUT",
        help="a bag (.mcap, .db3, .bag or a bag's folder), a BOP scene, a folder of images (with "
        "rgb/ or color/, depth/ with the same names, camera.json or camera_info.yaml), or "
        "`sample`, the bag that ships",
    )  # fmt: skip
    parser.add_argument("--rate", type=float, default=1.0, help="speed factor (1.0)")
    parser.add_argument("--loop", action="store_true", help="begin again at the end, until Ctrl-C")
    parser.add_argument(
        "--stamps", choices=("recorded", "now"),
        help="recorded: as in the file; now: the moment of publishing, colour and depth of one "
        "frame moved alike (recorded; with --loop and without --clock: now, as stamps that jump "
        "back are a fault to whoever has no simulated time)",
    )  # fmt: skip
    parser.add_argument(
        "--clock", action="store_true",
        help="publish /clock, for nodes with use_sim_time: the recording's time, with --stamps "
        "now the system's",
    )  # fmt: skip
    parser.add_argument(
        "--transport", choices=("raw", "recorded"), default="raw",
        help="raw: compressed images are decoded, pose_node's default; recorded: as they are, on "
        ".../compressed and .../compressedDepth (raw)",
    )  # fmt: skip
    parser.add_argument(
        "--no-wait", action="store_true", help="begin without waiting for a subscriber"
    )
    parser.add_argument(
        "--delay", type=float, metavar="S",
        help="seconds from the first subscriber to the first frame; DDS may need 3 to find a "
        "recorder or RViz as well, which misses what comes before (0.5; with --no-wait 0)",
    )  # fmt: skip
    add_topic_arguments(parser)
    parser.add_argument(
        "--fps", type=float,
        help="images a second, of a scene and of images whose names are no stamps: seconds such as "
        "1311868164.363181, or nanoseconds of 19 digits (10.0)",
    )  # fmt: skip
    add_calibration_arguments(parser)
    parser.add_argument(
        "--ros-args", nargs=argparse.REMAINDER, default=[], metavar="...",
        help="remappings as ROS takes them; must come last",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the subcommand until the recording ends. Raises HeatnetError."""
    if not 0.001 <= args.rate <= 1000:
        raise ConfigError(f"--rate: expected a factor of 0.001 to 1000, got {args.rate:g}.")
    if args.delay is None:
        args.delay = 0.0 if args.no_wait else _SETTLE_S
    if not 0 <= args.delay <= 3600:
        raise ConfigError(f"--delay: expected 0 to 3600 seconds, got {args.delay:g}.")
    if args.fps is not None and not 0.001 <= args.fps <= 1000:
        raise ConfigError(f"--fps: expected 0.001 to 1000 images a second, got {args.fps:g}.")
    if args.stamps is None:
        args.stamps = "now" if args.loop and not args.clock else "recorded"
    check_depth_scale(args.depth_scale)
    path = find_recording(args.input)
    try:
        from heatnet_ros.ros.player import play
    except ImportError as error:
        raise ConfigError(
            f"replay needs ROS 2 ({error}): source its setup.bash, or pip install "
            "'heatnet_ros[ros]'. Without ROS: python -m heatnet_ros predict."
        ) from error
    play(path, args)
    return 0


def main(args: list[str] | None = None) -> int:
    """Entry point of ``ros2 run heatnet_ros replay``."""
    parser = argparse.ArgumentParser(prog="replay", description=__doc__)
    add_arguments(parser)
    try:
        return run(parser.parse_args(args))
    except HeatnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
