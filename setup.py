"""Build for colcon (ament_python) and pip alike; names and versions stand in setup.cfg."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup

SHARE = Path("share/heatnet_ros")
INSTALLED_FOLDERS = ("config", "examples", "launch", "models")


def list_data_files() -> list[tuple[str, list[str]]]:
    """(folder under the prefix, files) of everything that is installed to share."""
    root = Path(__file__).resolve().parent
    entries = [
        ("share/ament_index/resource_index/packages", ["resource/heatnet_ros"]),
        (str(SHARE), ["package.xml"]),
    ]
    folders = [root / name for name in INSTALLED_FOLDERS]
    for folder in sorted(f for top in folders for f in (top, *top.rglob("*")) if f.is_dir()):
        relative = folder.relative_to(root)
        files = sorted(str(relative / f.name) for f in folder.iterdir() if f.is_file())
        # a link leads to development data, which is not ours to install
        if files and not folder.is_symlink() and folder.name != "__pycache__":
            entries.append((str(SHARE / relative), files))
    return entries


# python_requires stands here because colcon cannot read the object that setuptools makes of it
# when it stands in setup.cfg (colcon-python-setup-py 0.2.9)
setup(data_files=list_data_files(), python_requires=">=3.11")
