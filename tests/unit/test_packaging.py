"""What is installed, and that the three places that describe the package agree."""

import configparser
import importlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import heatnet_ros

ROOT = Path(__file__).resolve().parents[2]
XML = ElementTree.parse(ROOT / "package.xml").getroot()
CFG = configparser.ConfigParser()
CFG.read(ROOT / "setup.cfg")
# import name -> rosdep key; None: no key, README.md says how to install it
ROSDEP_KEYS = {
    "numpy": "python3-numpy",
    "opencv-python-headless": "python3-opencv",
    "PyYAML": "python3-yaml",
    "onnxruntime": None,
    "openvino": None,
}


def requirement_name(line: str) -> str:
    return re.split(r"[<>=!~ ]", line, maxsplit=1)[0]


def data_files(root: Path = ROOT) -> dict[str, str]:
    """Installed path -> source path, as setup.py hands them to setuptools."""
    code = (
        "import setuptools, runpy; setuptools.setup = lambda **k: print(k['data_files']); "
        "runpy.run_path('setup.py')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    entries = eval(done.stdout)
    return {f"{folder}/{Path(file).name}": file for folder, files in entries for file in files}


def tracked(folder: str) -> list[str]:
    command = ["git", "ls-files", "-co", "--exclude-standard", folder]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("git is not here, so nothing says which files belong to the project")
    return [name for name in done.stdout.splitlines() if (ROOT / name).exists()]


def test_name_version_and_license_agree():
    assert XML.findtext("name") == CFG["metadata"]["name"] == "heatnet_ros"
    assert XML.findtext("version") == heatnet_ros.__version__
    assert CFG["metadata"]["version"] == "attr: heatnet_ros.__version__"
    assert XML.findtext("license") == CFG["metadata"]["license"] == "Apache-2.0"
    assert XML.find("export/build_type").text == "ament_python"
    assert XML.get("format") == "3"


def test_every_requirement_has_a_range_and_a_rosdep_key_or_an_explanation():
    requirements = CFG["options"]["install_requires"].split()
    assert {requirement_name(line) for line in requirements} == set(ROSDEP_KEYS)
    keys = {element.text for element in XML.findall("exec_depend")}
    readme = (ROOT / "README.md").read_text()
    for line in requirements:
        name = requirement_name(line)
        assert ">=" in line and ",<" in line, line
        if ROSDEP_KEYS[name] is None:
            assert name in readme
        else:
            assert ROSDEP_KEYS[name] in keys


def test_run_time_needs_no_torch():
    assert "torch" not in CFG["options"]["install_requires"]
    assert "opencv-python>=4.9,<5" in CFG["options.extras_require"]["train"].split()


def test_messages_that_the_code_imports_are_named_in_package_xml():
    imported = set()
    for path in (ROOT / "heatnet_ros" / "ros").glob("*.py"):
        imported |= set(
            re.findall(r"^ *from (\w+_(?:msgs|srvs|interfaces))\b", path.read_text(), re.M)
        )
    assert "sensor_msgs" in imported
    assert imported <= {element.text for element in XML.findall("exec_depend")}


@pytest.mark.parametrize("line", CFG["options.entry_points"]["console_scripts"].split("\n")[1:])
def test_entry_point_can_be_called(line):
    module, function = line.split("=")[1].strip().split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_scripts_go_where_ros2_run_looks():
    assert CFG["install"]["install_scripts"] == "$base/lib/heatnet_ros"
    assert CFG["develop"]["script_dir"] == "$base/lib/heatnet_ros"


def test_config_launch_and_models_are_installed_to_share():
    installed = data_files()
    assert installed["share/ament_index/resource_index/packages/heatnet_ros"]
    assert installed["share/heatnet_ros/package.xml"] == "package.xml"
    wanted = [file for folder in ("config", "launch", "models") for file in tracked(folder)]
    assert "config/pose_demo.yaml" in wanted
    for file in wanted:
        assert installed.get(f"share/heatnet_ros/{file}") == file


def test_data_behind_a_link_is_not_installed(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secret.ply").write_text("")
    (tmp_path / "config" / "link").symlink_to(tmp_path / "data")
    (tmp_path / "setup.py").write_text((ROOT / "setup.py").read_text())
    installed = data_files(tmp_path).values()
    assert "package.xml" in installed and not [f for f in installed if "secret" in f]
