"""The recording that ships with the package: a second and a half of the demo's film."""

from __future__ import annotations

from pathlib import Path

from heatnet_ros.resources import find_resource

# made by: record config/sample/demo.mcap --from synthetic --seconds 1.6 --rate 5 --scenes 2
SAMPLE = "config/sample/demo.mcap"


def find_recording(path: Path) -> Path:
    """The path itself; ``sample``, where nothing has that name, is the shipped recording.

    Raises ConfigError where the sample is not installed.
    """
    if str(path) == "sample" and not path.exists():
        return find_resource(SAMPLE, "Sample recording")
    return path
