import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from child_environment import child_environment

from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.onboard.options import Places, add_arguments, read_options
from heatnet_ros.onboard.state import (
    STATE_FILE,
    check_options,
    load_state,
    locked,
    remove_results,
    start_state,
)


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / "root", "parts")


@pytest.fixture
def options(tmp_path):
    mesh = tmp_path / "part.ply"
    mesh.write_text("a mesh")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = [str(mesh), "--name", "parts", "--rename", "a=b", "--distance", "0.4,1"]
    return read_options(parser.parse_args(words))


def begun(places, options):
    state = start_state(places, options, "1.0")
    state.put("seconds", 1.0)
    return state


def test_a_state_comes_back_as_it_was_put(places, options):
    state = begun(places, options)
    state.finish("keypoints", ["python"], 1.23, images=7)
    again = load_state(places)
    assert again.document == state.document
    assert again.finished == {"keypoints": {"command": ["python"], "seconds": 1.2, "images": 7}}
    again.forget("keypoints")
    again.forget("never done")
    assert load_state(places).finished == {}
    assert [path.name for path in places.run.iterdir()] == [STATE_FILE]


def test_no_state_is_none_and_a_damaged_one_is_an_error(places, options):
    assert load_state(places) is None
    begun(places, options)
    path = places.run / STATE_FILE
    for text in (path.read_text()[:-30], "[]", '{"options": 1, "finished": {}}', "{}"):
        path.write_text(text)
        with pytest.raises(DataError, match="is damaged"):
            load_state(places)


def test_the_same_options_continue(places, options):
    check_options(begun(places, options), options)
    check_options(load_state(places), options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget_s": 60.0}, "--budget: 3600.0 then, 60.0 now"),
        ({"distance_m": None}, r"--distance: \[0.4, 1.0\] then, not given now"),
        ({"rename": ()}, r'--rename: \["a=b"\] then, not given now'),
        ({"meshes": {"other.ply": "0"}}, r"without .*part\.ply, with other\.ply"),
        ({"init": {"a.pt": "0"}}, "--init"),
    ],
)
def test_other_options_are_named(places, options, change, message):
    state = begun(places, options)
    with pytest.raises(ConfigError, match=message):
        check_options(state, replace(options, **change))


def test_a_mesh_with_other_content_is_another_mesh(places, options):
    state = begun(places, options)
    (path,) = options.meshes
    with pytest.raises(ConfigError, match=r"meshes: .*part\.ply has changed"):
        check_options(state, replace(options, meshes={path: "0" * 64}))


@pytest.mark.parametrize("what", ["library", "meshes", "data", "params"])
def test_files_of_others_are_not_touched(places, options, what):
    path = getattr(places, what)
    path.mkdir(parents=True)
    with pytest.raises(ConfigError, match="exists and no onboarding of that name is known"):
        start_state(places, options, "1.0")
    remove_results(places)
    assert path.exists()


def test_restart_removes_what_an_onboarding_made_and_nothing_else(places, options):
    made = [
        places.library, places.params, places.mesh("part"), places.data / "train" / "x",
        places.model("yolo") / "manifest.yaml", places.model("heatnet") / "manifest.yaml",
        places.training("yolo") / "final.pt", places.report, places.log("keypoints"),
    ]  # fmt: skip
    others = [places.root / "config" / "objects" / "lm.yaml", places.root / "data" / "lm" / "x"]
    for path in [*made, *others]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    with locked(places):
        places_state = places.run / STATE_FILE
        places_state.write_text("damaged")
        remove_results(places)
    assert not any(path.exists() for path in [*made, places_state])
    assert all(path.exists() for path in others)
    start_state(places, options, "1.0")


_HOLD = """
import sys, time
from pathlib import Path
from heatnet_ros.onboard.options import Places
from heatnet_ros.onboard.state import locked
with locked(Places(Path(sys.argv[1]), "parts")):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_one_onboarding_at_a_time_and_a_killed_one_lets_go(places):
    env = child_environment()
    command = [sys.executable, "-c", _HOLD, str(places.root)]
    holder = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        with (
            pytest.raises(ConfigError, match=rf"is running \(process {holder.pid}\)"),
            locked(places),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with locked(places):
        pass


_WRITE = """
import sys
from pathlib import Path
from heatnet_ros.onboard.state import State
state = State(Path(sys.argv[1]), {"options": {}, "finished": {}, "seconds": 0, "filler": "x" * 200_000})
print("begun", flush=True)
while True:
    state.put("seconds", state["seconds"] + 1)
"""  # noqa: E501


def test_a_kill_at_any_moment_leaves_a_whole_state(places):
    places.run.mkdir(parents=True)
    path = places.run / STATE_FILE
    env = child_environment()
    for wait_s in (0.0, 0.013, 0.037):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITE, str(path)], env=env, stdout=subprocess.PIPE
        )
        writer.stdout.readline()
        while not path.exists():
            time.sleep(0.001)
        time.sleep(wait_s)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        assert load_state(places)["seconds"] >= 1


def test_a_root_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    places = Places(tmp_path / "file", "parts")
    with (
        pytest.raises(DataError, match=r"cannot be written: .* Give another --out-root"),
        locked(places),
    ):
        pass


def test_the_state_is_readable_by_people(places, options):
    begun(places, options)
    text = (places.run / STATE_FILE).read_text()
    assert json.loads(text)["options"]["budget_s"] == 3600.0
    assert text.count("\n") > 10
