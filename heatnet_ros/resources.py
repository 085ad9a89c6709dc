"""Where config/, models/ and launch/ lie: in a checkout, a colcon install or a pip install."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from heatnet_ros.errors import ConfigError


def share_folders() -> list[Path]:
    """Folders searched for relative paths, first match wins.

    The current folder, ``$HEATNET_ROS_SHARE``, the source checkout, every prefix of
    ``$AMENT_PREFIX_PATH`` (colcon install) and the interpreter's prefix (pip install).
    """
    folders = [Path.cwd()]
    if os.environ.get("HEATNET_ROS_SHARE"):
        folders.append(Path(os.environ["HEATNET_ROS_SHARE"]))
    folders.append(Path(__file__).resolve().parent.parent)
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    folders += [Path(p) / "share" / "heatnet_ros" for p in [*prefixes, sys.prefix]]
    return folders


def find_resource(path: str | Path, what: str) -> Path:
    """Absolute path of a file or folder given absolutely or relative to a share folder.

    Raises ConfigError naming every place that was tried.
    """
    wanted = Path(path).expanduser()
    tried = [wanted] if wanted.is_absolute() else [folder / wanted for folder in share_folders()]
    for candidate in tried:
        if candidate.exists():
            return candidate
    places = ", ".join(dict.fromkeys(str(p) for p in tried))
    raise ConfigError(
        f"{what} '{path}' not found. Looked at: {places}. Give an absolute path or set "
        "HEATNET_ROS_SHARE to the folder that holds config/ and models/."
    )
