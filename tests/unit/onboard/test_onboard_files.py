import argparse
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from heatnet_ros.config import build_config, load_yaml
from heatnet_ros.datasets.synthesize import load_synthetic_config
from heatnet_ros.onboard.budget import Wishes, make_fixed_plan, make_plan, rough_rates
from heatnet_ros.onboard.check import ONE_COLOR, CheckedObject
from heatnet_ros.onboard.files import (
    SMALLEST_PX,
    choose_distance,
    choose_views,
    training_content,
    write_params_file,
    write_scenes_file,
    write_training_file,
)
from heatnet_ros.onboard.options import Places, add_arguments, read_options
from heatnet_ros.params_file import load_params
from heatnet_ros.training.run_config import RunConfig


def part(diameter_m=0.12, name="part", colors="varied"):
    size = (diameter_m, diameter_m, diameter_m)
    return CheckedObject(name, "x.ply", diameter_m, size, colors, "", (), (), ())


@pytest.fixture
def options(tmp_path):
    mesh = tmp_path / "part.ply"
    mesh.write_text("not read here")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return read_options(parser.parse_args([str(mesh), "--name", "set"]))


@pytest.mark.parametrize("diameters", [(0.005,), (0.03,), (0.1, 0.3), (0.12,), (0.02, 1.5), (4.9,)])
def test_distances_fit_the_objects_and_what_synthesize_takes(diameters):
    near, far = choose_distance([part(d) for d in diameters])
    assert 0.1 < near < far < 10
    # room to move, and nothing inside the largest object
    assert far / near > 1.3
    assert near > max(diameters)


def test_distances_of_usual_parts():
    # 2.5 and 7 diameters
    assert choose_distance([part(0.12)]) == (0.3, 0.84)


def test_objects_that_are_too_small_for_the_camera_are_told(options):
    views = choose_views(options, [part(0.2), part(0.01, "screw")])
    (remark,) = [text for text in views.remarks if "screw" in text]
    pixels = 615 * 0.01 / views.distance_m[1]
    assert f"only {pixels:.0f} pixels" in remark and pixels < SMALLEST_PX
    assert choose_views(options, [part(0.12)]).remarks == ()


def test_flags_go_first(options):
    camera = (900.0, 901.0, 400.0, 300.0, 1280, 720)
    views = choose_views(replace(options, camera=camera, distance_m=(0.5, 2.0)), [part()])
    assert (views.camera, views.distance_m) == (camera, (0.5, 2.0))
    assert views.remarks == ()  # a wide image is as good as any


def test_the_scenes_file_is_understood_by_synthesize(options, tmp_path):
    places = Places(tmp_path, "set")
    objects = [part(0.1, str(i)) for i in range(7)]
    views = write_scenes_file(replace(options, poses="resting"), objects, places)
    config = load_synthetic_config(places.scenes_file)
    assert Path(config.objects_file) == places.library
    assert config.settings.distance_m == views.distance_m
    assert (config.settings.objects, config.settings.poses) == ((3, 5), "resting")
    write_scenes_file(options, objects[:2], places)
    assert load_synthetic_config(places.scenes_file).settings.objects == (2, 2)


def test_training_files_have_the_plan_and_only_keys_that_are_known(options, tmp_path):
    places = Places(tmp_path, "set")
    plan = make_plan(Wishes(3600.0), rough_rates(2, 1), 0.0)
    options = replace(options, init={"runs/x/final.pt": "0"}, rgb=True)
    content = training_content("heatnet", options, [part(colors=ONE_COLOR)], places, plan)
    assert content["minutes"] == plan.heatnet_minutes
    assert content["optimizer"] == "muon" and content["init"] == "runs/x/final.pt"
    assert not content["rgbd"] and content["augment"]["gray"] > 0
    own = {"network", "preset", "width", "rgbd", "stem", "augment"}
    build_config(RunConfig, {k: v for k, v in content.items() if k not in own}, "here")
    detector = training_content("yolo", options, [part()], places, plan)
    assert detector["minutes"] == plan.yolo_minutes and "init" not in detector
    build_config(
        RunConfig,
        {k: v for k, v in detector.items() if k not in ("network", "size", "hue")},
        "here",
    )
    path = places.training_file("heatnet")
    write_training_file(path, content)
    assert load_yaml(path, "Training file") == content
    fixed = training_content("yolo", options, [part()], places, make_fixed_plan(120, 9, 77, 2))
    assert (fixed["samples"], fixed["minutes"]) == (77, 0.0)


@pytest.mark.parametrize(("cores", "loaders"), [(1, 1), (2, 1), (3, 1), (8, 4), (16, 8), (64, 8)])
@pytest.mark.parametrize("network", ["yolo", "heatnet"])
def test_a_training_has_loader_processes_for_its_machine(
    network, cores, loaders, options, tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    plan = make_plan(Wishes(3600.0), rough_rates(cores, 1), 0.0)
    content = training_content(network, options, [part()], Places(tmp_path, "set"), plan)
    assert content["workers"] == loaders


def test_the_parameter_file_is_the_nodes(tmp_path):
    places = Places(tmp_path, "set")
    write_params_file(places)
    config = load_params(places.params)
    assert config.objects_file == str(places.library)
    assert config.detector.model == str(places.model("yolo"))
    assert config.estimator.model == str(places.model("heatnet"))
    assert list(yaml.safe_load(places.params.read_text())) == ["/**"]
