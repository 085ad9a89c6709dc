"""The shipped networks: whole, for the shipped objects, and the same on every backend."""

from pathlib import Path

import numpy as np
import pytest

from heatnet_ros.config import EngineConfig, PipelineConfig
from heatnet_ros.errors import EngineError
from heatnet_ros.manifest import check_objects, load_manifest
from heatnet_ros.metrics import add_or_adds_error_m, pose_errors
from heatnet_ros.objects import load_objects
from heatnet_ros.pipeline import load_pipeline
from heatnet_ros.rendering.orbit import Film
from heatnet_ros.types import Frame

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in (ROOT / "models").glob("*/manifest.yaml"))
K = np.array([[615.3, 0.0, 321.2], [0.0, 615.6, 238.4], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_manifest_fits_the_object_library(folder):
    manifest = load_manifest(folder)
    library = load_objects(ROOT / "config" / "objects" / f"{folder.name.split('_')[0]}.yaml")
    check_objects(manifest, library)
    assert manifest.objects == tuple(library.objects)
    assert manifest.training["command"].startswith(
        ("python -m heatnet_ros.training.", "python -m heatnet_ros train ")
    )
    config = manifest.training["command"].split("--config ")[1].split()[0]
    assert (ROOT / config).exists()
    assert manifest.accuracy


def test_all_networks_together_stay_small():
    assert {folder.name for folder in FOLDERS} == {
        "demo_yolo", "demo_heatnet_rgbd",
        "linemod_yolo", "linemod_heatnet_rgbd", "linemod_heatnet_rgb",
    }  # fmt: skip
    assert sum(path.stat().st_size for path in (ROOT / "models").rglob("*")) < 120e6


def test_both_backends_see_the_same_true_poses():
    library = load_objects(ROOT / "config/objects/demo.yaml")
    try:
        with Film(library, (640, 480), K, seed=4) as film:
            shots = [film.render(i) for i in (0, 45, 90)]
    except EngineError as error:
        pytest.skip(f"off-screen OpenGL cannot be had here: {error}")
    found = {}
    for backend, precision in (("onnxruntime", "fp32"), ("openvino", "auto")):
        pipeline = load_pipeline(PipelineConfig(engine=EngineConfig(backend, precision)))
        for i, shot in enumerate(shots):
            frame = Frame(shot.rgb, K, shot.depth_m, stamp_ns=i * 10**10)
            found[backend, i] = {p.object_id: p for p in pipeline.run(frame).poses}
    for i, shot in enumerate(shots):
        for name, T_true in shot.poses_true.items():
            model = library[name]
            for backend in ("onnxruntime", "openvino"):
                T = found[backend, i][name].T_camera_object
                error_m = add_or_adds_error_m(T, T_true, model.surface[:, :3], model.symmetries)
                assert error_m < 0.1 * model.diameter_m
            poses = [found[b, i][name].T_camera_object for b in ("onnxruntime", "openvino")]
            between = pose_errors(*poses, model.symmetries)
            assert between.translation_mm < 3 and between.rotation_deg < 4
