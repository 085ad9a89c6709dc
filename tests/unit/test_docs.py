"""The docs keep up with the code: links, commands, files, parameters, pictures."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from heatnet_ros.__main__ import COMMANDS
from heatnet_ros.config import PipelineConfig
from heatnet_ros.options import list_options
from heatnet_ros.parameters_page import render_page
from heatnet_ros.ros.cameras import CAMERAS
from heatnet_ros.ros.node_config import NodeConfig

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
COMMAND = re.compile(r"python -m (heatnet_ros[\w.]*)(?: +([a-z]\w*))?")
LAUNCHED = re.compile(r"ros2 launch heatnet_ros\s+([\w.]+)((?:\s+\\?\s*[\w.]+:=\S+)*)")


def name_of(page):
    return str(page.relative_to(ROOT))


def anchors(page):
    """As GitHub makes them of the headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page):
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: {target} is not there"
        if anchor:
            assert anchor in anchors(target), f"{link}: headings are {sorted(anchors(target))}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_commands_exist(page):
    text = page.read_text().replace("\\\n", " ")
    for module, word in COMMAND.findall(text):
        assert importlib.util.find_spec(module.rstrip(".")), f"no module {module}"
        if module == "heatnet_ros" and word:
            assert word in COMMANDS, f"`python -m heatnet_ros {word}` does not exist"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_launch_files_and_arguments_exist(page):
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    for name, arguments in LAUNCHED.findall(text):
        files = list(ROOT.glob(f"launch/{name}")) + list(ROOT.glob(f"examples/{name}"))
        assert files, f"{name} is not in launch/ nor in examples/"
        for argument in re.findall(r"([\w.]+):=", arguments):
            assert f'"{argument}"' in files[0].read_text(), f"{name} has no argument {argument}"
        camera = re.search(r"camera:=([\w|]+)", arguments)
        for preset in camera.group(1).split("|") if camera else []:
            assert preset in CAMERAS, f"camera:={preset} is no preset"


def test_every_page_is_on_the_map():
    linked = LINK.findall((ROOT / "docs" / "index.md").read_text())
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= set(linked), f"docs/index.md lacks {sorted(pages - set(linked))}"


def test_the_page_of_parameters_is_current():
    assert (ROOT / "docs" / "parameters.md").read_text() == render_page(), (
        "run: python -m heatnet_ros.parameters_page > docs/parameters.md"
    )


def test_the_page_of_parameters_names_each_once_with_its_default():
    rows = [line.split(" | ") for line in render_page().splitlines() if line.startswith("| `")]
    defaults = {row[0].strip("| `"): row[1].strip("`") for row in rows}
    options = list_options(NodeConfig, PipelineConfig)
    assert len(rows) == len(defaults) and set(defaults) == set(options)
    assert defaults["sync_slop_s"] == "0.008" and defaults["autostart"] == "true"
    assert dict(zip(defaults, rows, strict=True))["gate.min_score"][3].strip() == "yes"


def test_the_page_of_parameters_needs_no_ros():
    code = (
        "import sys; sys.modules['rclpy'] = None; import runpy; "
        "runpy.run_module('heatnet_ros.parameters_page', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == render_page(), done.stderr


@pytest.mark.parametrize("name", CAMERAS)
def test_each_camera_has_its_set_up(name):
    page = (ROOT / "docs" / "cameras.md").read_text()
    assert f"camera:={name}" in page
    for topic in CAMERAS[name].topics().values():
        assert topic in page, f"docs/cameras.md does not name {topic}"


def test_pictures_are_small():
    pictures = [f for f in (ROOT / "docs" / "images").iterdir() if f.is_file()]
    assert pictures and all(f.stat().st_size <= 300_000 for f in pictures)
