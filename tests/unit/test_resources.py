"""Resources are found in a checkout, a colcon install and a pip install, in this order."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from heatnet_ros.errors import ConfigError
from heatnet_ros.resources import find_resource, share_folders

CHECKOUT = Path(__file__).parents[2]


def _place(folder: Path) -> Path:
    path = folder / "config" / "only_here.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("")
    return path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.delenv("HEATNET_ROS_SHARE", raising=False)
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)


def test_the_checkout_is_found_from_any_folder() -> None:
    assert find_resource("config/objects/demo/mug.ply", "Mesh").samefile(
        CHECKOUT / "config/objects/demo/mug.ply"
    )


def test_places_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "config/only_here.yaml"
    prefix = _place(tmp_path / "prefix" / "share" / "heatnet_ros")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    assert find_resource(name, "File") == prefix
    ament = _place(tmp_path / "b" / "share" / "heatnet_ros")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert find_resource(name, "File") == ament
    share = _place(tmp_path / "share")
    monkeypatch.setenv("HEATNET_ROS_SHARE", str(tmp_path / "share"))
    assert find_resource(name, "File") == share
    assert find_resource(name, "File") != _place(tmp_path / "other")
    here = _place(tmp_path / "cwd")
    assert find_resource(name, "File") == here


def test_absolute_paths_are_taken_as_they_are(tmp_path: Path) -> None:
    path = _place(tmp_path / "x")
    assert find_resource(path, "File") == path
    with pytest.raises(ConfigError, match=r"'/no/such' not found\. Looked at: /no/such"):
        find_resource("/no/such", "File")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_resource("~/cwd", "Folder") == tmp_path / "cwd"


def test_a_missing_resource_names_every_place_and_the_remedy() -> None:
    with pytest.raises(ConfigError) as caught:
        find_resource("models/none", "Model folder")
    message = str(caught.value)
    assert message.startswith("Model folder 'models/none' not found")
    for folder in share_folders():
        assert str(folder / "models/none") in message
    assert "HEATNET_ROS_SHARE" in message
