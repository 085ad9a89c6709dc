"""How every node's program starts: ``--help``, then rclpy, with one line where that fails."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.utilities import remove_ros_args

from heatnet_ros.options import list_options


def start_ros(
    name: str,
    purpose: str,
    args: list[str] | None,
    config: type | None = None,
    **options: Any,
) -> None:
    """Initialise rclpy. Prints the help and ends the program for ``-h`` or ``--help``.

    config: dataclass of the node's parameters, which the help lists; None: they stand in
    docs/parameters.md. Raises SystemExit with one line when arguments stand outside of
    ``--ros-args``, a parameter file is missing or ROS refuses them.
    """
    given = sys.argv[1:] if args is None else args
    if "-h" in given or "--help" in given:
        print(
            f"{name}: {purpose}\n\n"
            f"  {name} --ros-args --params-file FILE   parameters from a file\n"
            f"  {name} --ros-args -p NAME:=VALUE       one parameter\n"
            f"  {name} --ros-args -r FROM:=TO          another topic\n\n"
            f"{_describe_parameters(config)}\nRuns until Ctrl-C."
        )
        raise SystemExit(0)
    _check_files(name, given)
    try:
        _check_foreign(name, given)
        rclpy.init(args=args, **options)
    except RuntimeError as error:  # RCLError: its text names ROS's own source files
        reason = str(error).split(", at ")[0]
        raise SystemExit(f"{name}: ROS refuses the arguments: {reason}") from error


def _describe_parameters(config: type | None) -> str:
    if config is None:
        return (
            "config/pose_demo.yaml is the demo's parameter file, docs/parameters.md lists all "
            "parameters."
        )
    options = list_options(config).values()
    lines = [
        f"  {o.name:<18} {o.field.metadata['description']} ({o.field.default!r})" for o in options
    ]
    return "Parameters (and their defaults):\n" + "\n".join(lines) + "\n"


def _check_files(name: str, given: Sequence[str]) -> None:
    """Raise SystemExit where a parameter file is missing: ROS calls that a parser's failure."""
    for option, value in itertools.pairwise(given):
        if option == "--params-file" and not Path(value).is_file():
            raise SystemExit(
                f"{name}: parameter file {value!r} not found from {Path.cwd()}. Give its path; "
                "the package's own are in config/."
            )


def _check_foreign(name: str, given: Sequence[str]) -> None:
    """Raise SystemExit for an argument that ROS would ignore."""
    foreign = remove_ros_args([name, *given])[1:]
    if foreign:
        if foreign[0].endswith((".yaml", ".yml")):
            remedy = f"A parameter file is given so: {name} --ros-args --params-file {foreign[0]}"
        elif foreign[0].startswith("-") and "--ros-args" not in given:
            command = f"{name} --ros-args {' '.join(given)}"
            remedy = f"ROS takes its arguments behind --ros-args: {command}"
        else:
            remedy = f"{name} --help says what there is."
        raise SystemExit(f"{name}: unknown argument {foreign[0]!r}. {remedy}")
