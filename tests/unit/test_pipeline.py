"""The whole way from a frame to poses, on networks that know the truth."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest
import yaml
from fakes import (
    DETECTOR_HW,
    INPUT_PX,
    KEYPOINTS,
    LIBRARY,
    MARGIN,
    MESHES,
    SIZE_HW,
    STRIDE,
    World,
    largest_turn_deg,
    pose,
)

from heatnet_ros.config import EngineConfig, FollowConfig, GateConfig, PipelineConfig, RefinerConfig
from heatnet_ros.errors import ConfigError, ModelError
from heatnet_ros.estimators.yolo import encode_detections
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import fit_letterbox
from heatnet_ros.geometry.symmetry import canonicalize, rotation_about
from heatnet_ros.mesh import write_ply
from heatnet_ros.objects import describe_object, load_objects, save_objects
from heatnet_ros.pipeline import Pipeline, load_pipeline
from heatnet_ros.types import Detection, PipelineResult, PoseEstimate, Reason

WEDGE = ("wedge", pose(-0.15, 0.0, 0.6))
BRICK = ("brick", pose(0.1, 0.08, 0.7, (1.9, 0.3, 0.2)))
DISC = ("disc", pose(0.15, -0.1, 0.65, (2.0, -0.3, 0.0)))
NO_REFINER = PipelineConfig(refiner=RefinerConfig(name="none"))
FRAME_NS = 33_000_000


def position_error_m(found: PoseEstimate, T: np.ndarray) -> float:
    return float(np.linalg.norm(found.T_camera_object[:3, 3] - T[:3, 3]))


def reasons(result: PipelineResult) -> list[Reason]:
    return [r.reason for r in result.rejected]


@pytest.mark.parametrize("config", [PipelineConfig(), NO_REFINER], ids=["icp", "no refiner"])
@pytest.mark.parametrize("rgbd", [True, False], ids=["rgbd", "rgb"])
def test_truth_in_truth_out(config: PipelineConfig, rgbd: bool) -> None:
    world = World(WEDGE, BRICK, DISC, ("wedge", pose(-0.1, 0.15, 0.8, (1.8, 0.2, 2.0))))
    result = world.pipeline(config, rgbd).run(world.frame(depth=rgbd))
    assert result.rejected == ()
    assert [(p.object_id, p.instance) for p in result.poses] == [
        ("wedge", 0), ("brick", 0), ("disc", 0), ("wedge", 1),
    ]  # fmt: skip
    for found, (name, T) in zip(result.poses, world.truth, strict=True):
        seen = canonicalize(T, LIBRARY[name].symmetries)
        assert position_error_m(found, seen) < 2e-4
        assert np.degrees(se3.rotation_angle_rad(found.T_camera_object[:3, :3], seen[:3, :3])) < 0.1
        assert found.covariance is not None
        assert np.linalg.eigvalsh(found.covariance).min() > 0
        assert (found.depth_error_m is not None) == rgbd
        if found.depth_error_m is not None:
            assert abs(found.depth_error_m) < 2e-3
    assert set(result.timings_s) == {"detect", "estimate", "refine", "gate", "filter"}
    assert result.engines == {"detector": "fake CPU fp32", "estimator": "fake CPU fp32"}
    assert len(result.detections) == 4


def test_nothing_in_view() -> None:
    world = World()
    result = world.pipeline().run(world.frame())
    assert (result.poses, result.rejected, result.detections) == ((), (), ())


def test_too_few_inliers() -> None:
    world = World(WEDGE)
    world.shuffle = 0.85  # 5 of 32 left
    result = world.pipeline().run(world.frame())
    assert result.poses == ()
    assert reasons(result) == [Reason.TOO_FEW_INLIERS]
    assert result.rejected[0].detection == result.detections[0]


def test_reprojection_high() -> None:
    world = World(WEDGE)
    world.noise_px = 3.0
    config = replace(NO_REFINER, gate=GateConfig(max_reprojection_px=1.0))
    result = world.pipeline(config).run(world.frame())
    assert reasons(result) == [Reason.REPROJECTION_HIGH]
    assert "max_reprojection_px 1.0" in result.rejected[0].detail


@pytest.mark.parametrize("config", [PipelineConfig(), NO_REFINER], ids=["icp", "no refiner"])
@pytest.mark.parametrize("shift_m", [0.3, -0.3])
def test_depth_disagrees(shift_m: float, config: PipelineConfig) -> None:
    """Neither direction passes, and the refiner must not drag the pose along to wrong depth."""
    world = World(WEDGE, BRICK, DISC)
    world.depth_shift_m = shift_m
    result = world.pipeline(config).run(world.frame())
    assert result.poses == ()
    assert reasons(result) == [Reason.DEPTH_DISAGREES] * 3
    assert f"measured minus predicted {shift_m:.1f}" in result.rejected[0].detail


def test_depth_that_disagrees_a_little_lowers_the_score() -> None:
    world = World(WEDGE)
    frame = world.frame()
    pipeline = world.pipeline(NO_REFINER)
    (before,) = pipeline.run(frame).poses
    # half of the object is hidden behind something 8 cm in front of it
    depth_m = frame.depth_m.copy()
    x = int(
        world.detections()[0].bbox_xyxy_px[0] * 0.55 + world.detections()[0].bbox_xyxy_px[2] * 0.45
    )
    depth_m[:, :x] = 0.5
    (after,) = pipeline.run(replace(frame, depth_m=depth_m)).poses
    assert 0.3 * before.score < after.score < 0.8 * before.score
    assert position_error_m(after, WEDGE[1]) < 1e-4


def test_no_depth() -> None:
    world = World(WEDGE, BRICK)
    pipeline = world.pipeline()
    result = pipeline.run(world.frame(depth=False))
    assert pipeline.needs_depth
    assert result.poses == ()
    assert reasons(result) == [Reason.NO_DEPTH] * 2
    assert len(pipeline.run(world.frame()).poses) == 2  # recovers with the next frame


def test_score_low() -> None:
    world = World(WEDGE)
    world.peak = 0.2
    result = world.pipeline().run(world.frame())
    assert reasons(result) == [Reason.SCORE_LOW]


def test_one_bad_object_does_not_take_the_others_along() -> None:
    world = World(WEDGE, BRICK)
    frame = world.frame()
    x0, y0, x1, y1 = (round(v) for v in world.detections()[0].bbox_xyxy_px)
    frame.depth_m[y0 - 40 : y1 + 40, x0 - 40 : x1 + 20] += 0.3
    result = world.pipeline().run(frame)
    assert [p.object_id for p in result.poses] == ["brick"]
    assert [(r.object_id, r.reason) for r in result.rejected] == [("wedge", Reason.DEPTH_DISAGREES)]


def test_an_object_detected_twice_is_told_once() -> None:
    """Boxes that differ too much for the detector to see it, poses that do not."""
    world = World(WEDGE, WEDGE, BRICK)
    world.noise_px = 0.3
    x0, y0, x1, y1 = world.detections()[0].bbox_xyxy_px
    first, _, brick = world.detections()
    second = Detection("wedge", (x0, y0 - 0.6 * (y1 - y0), x1 + 0.3 * (x1 - x0), y1), 0.94)
    world.detections = lambda: [first, second, brick]  # type: ignore[method-assign]
    result = world.pipeline().run(world.frame())
    assert len(result.detections) == 3
    assert [p.object_id for p in result.poses] == ["wedge", "brick"]
    assert result.rejected == ()


def test_equal_frames_give_equal_results() -> None:
    results = []
    for _ in range(2):
        world = World(WEDGE, BRICK, DISC)
        world.noise_px, world.shuffle = 1.0, 0.2
        results.append(world.pipeline().run(world.frame()))
    for a, b in zip(results[0].poses, results[1].poses, strict=True):
        np.testing.assert_array_equal(a.T_camera_object, b.T_camera_object)
        np.testing.assert_array_equal(a.covariance, b.covariance)


def test_symmetric_objects_do_not_flip_between_frames() -> None:
    """The brick turns under the camera: its network answers with the other end from some frame."""
    told, answered = [], []
    world = World(BRICK)
    pipeline = world.pipeline()
    for i, angle in enumerate(np.radians(np.arange(0, 200, 8))):
        T = BRICK[1] @ rotation_about(np.eye(3)[2], np.zeros(3), angle)
        world.truth = [("brick", T)]
        (found,) = pipeline.run(world.frame(stamp_ns=i * FRAME_NS)).poses
        assert found.instance == 0
        told.append(found.T_camera_object)
        answered.append(canonicalize(T, LIBRARY["brick"].symmetries))

    assert largest_turn_deg(told) < 9
    assert largest_turn_deg(answered) > 150


def test_reset_starts_a_new_sequence() -> None:
    world = World(WEDGE, ("wedge", pose(0.15, 0.0, 0.7)))
    pipeline = world.pipeline()
    pipeline.run(world.frame())
    world.truth = world.truth[1:]
    assert pipeline.run(world.frame()).poses[0].instance == 1
    pipeline.reset()
    assert pipeline.run(world.frame()).poses[0].instance == 0


def test_live_thresholds_change_at_once() -> None:
    world = World(WEDGE)
    config = PipelineConfig(follow=FollowConfig(enabled=False))  # followed boxes need no detector
    pipeline = world.pipeline(config)
    frame = world.frame()
    changes: list[dict[str, Any]] = [
        {"detector": replace(config.detector, score_threshold=0.99)},
        {"estimator": replace(config.estimator, min_confidence=1.0)},
        {"gate": replace(config.gate, min_inliers=33)},
    ]
    for change in changes:
        assert len(pipeline.run(frame).poses) == 1
        pipeline.update(replace(config, **change))
        assert pipeline.run(frame).poses == ()
        pipeline.update(config)


def test_other_options_cannot_change() -> None:
    pipeline = World(WEDGE).pipeline()
    config = PipelineConfig()
    changed = replace(
        config, engine=EngineConfig(threads=1), gate=replace(config.gate, min_inliers=33)
    )
    with pytest.raises(ConfigError, match=r"^engine\.threads cannot change"):
        pipeline.update(changed)
    assert pipeline.config == config


@pytest.mark.parametrize("with_depth", [True, False])
@pytest.mark.parametrize("rgbd", [True, False])
def test_warm_up_runs_every_batch_and_leaves_no_trace(rgbd: bool, with_depth: bool) -> None:
    world = World(WEDGE)
    pipeline = world.pipeline(rgbd=rgbd)
    estimator = pipeline._estimator
    pipeline.warm_up(with_depth=with_depth)
    assert [len(call["object_index"]) for call in estimator.engine.calls] == list(range(1, 9))
    (found,) = pipeline.run(world.frame()).poses
    assert found.instance == 0


# real files, real engines


@pytest.fixture(scope="module")
def world() -> World:
    return World(WEDGE, BRICK, DISC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    """An object library, two ONNX files that answer with the truth, and their manifests."""
    made = tmp_path_factory.mktemp("made")
    symmetries = {
        "wedge": [],
        "brick": [{"axis": [0, 0, 1], "fold": 2}],
        "disc": [{"axis": [0, 0, 1], "continuous": True}],
    }
    entries = []
    for name, mesh in MESHES.items():
        write_ply(made / f"{name}.ply", mesh)
        entry = describe_object(name, made / f"{name}.ply", "m", symmetries[name], KEYPOINTS)
        # the keypoints that the world's heatmaps are made of
        entries.append(entry | {"keypoints_m": LIBRARY[name].keypoints_m.tolist()})
    save_objects(made / "objects.yaml", "fake", entries)
    library = load_objects(made / "objects.yaml")
    names = list(MESHES)
    rows = encode_detections(world.detections(), fit_letterbox(SIZE_HW, DETECTOR_HW), names, 20)
    for folder in ("yolo", "heatnet"):
        (made / folder).mkdir()
    onnx_models.save_manifest(
        made / "yolo",
        onnx_models.save_detector(made / "yolo" / "y.onnx", rows, DETECTOR_HW),
        estimator="yolo", objects=names, input_hw=list(DETECTOR_HW),
        inputs={"image": "images"}, outputs={"detections": "output0"},
    )  # fmt: skip
    onnx_models.save_manifest(
        made / "heatnet",
        onnx_models.save_heatnet(made / "heatnet" / "h.onnx", world.heatmaps(), INPUT_PX),
        estimator="heatnet", objects=names, objects_hash=library.keypoints_hash(names),
        input_hw=[INPUT_PX, INPUT_PX], stride=STRIDE, keypoints=KEYPOINTS, crop_margin=MARGIN,
        inputs={"rgb": "rgb", "object_index": "object_index", "depth": "depth"},
        outputs={"heatmaps": "heatmaps"},
    )  # fmt: skip
    return made


@pytest.fixture
def files(made: Path, tmp_path: Path) -> PipelineConfig:
    """A copy of them to spoil, and the configuration that names it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    config = PipelineConfig()
    return replace(
        config,
        objects_file=str(tmp_path / "objects.yaml"),
        detector=replace(config.detector, model=str(tmp_path / "yolo")),
        estimator=replace(config.estimator, model=str(tmp_path / "heatnet")),
    )


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_load_pipeline_on_real_networks(backend: str, files: PipelineConfig, world: World) -> None:
    pipeline = load_pipeline(replace(files, engine=EngineConfig(backend=backend)))
    pipeline.warm_up()
    result = pipeline.run(world.frame())
    assert [p.object_id for p in result.poses] == ["wedge", "brick", "disc"]
    for found, (name, T) in zip(result.poses, world.truth, strict=True):
        assert position_error_m(found, canonicalize(T, LIBRARY[name].symmetries)) < 2e-4
    assert all(text.startswith(f"{backend} CPU ") for text in result.engines.values())
    assert list(pipeline.library.objects) == list(MESHES)


def rewrite(files: PipelineConfig, model: str, **values: Any) -> None:
    path = Path(getattr(files, model).model) / "manifest.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        ("detector", {"estimator": "heatnet"}, r"is a 'heatnet', expected a detector \(yolo\)"),
        ("estimator", {"estimator": "casapose"}, "is a 'casapose', expected 'heatnet'"),
        ("detector", {"input_hw": [640, 640]}, "input 'image' should be images uint8.*640,640"),
        ("estimator", {"stride": 4}, "output 'heatmaps' should be heatmaps float32.*32,32,32"),
        ("estimator", {"inputs": {"rgb": "rgb"}}, "expected inputs .*object_index.*names rgb"),
        ("estimator", {"keypoints": 33}, "expects 33 keypoints for 'wedge'.*defines 32"),
        ("estimator", {"objects_hash": "0" * 64}, "other keypoints or symmetries"),
        ("estimator", {"onnx_sha256": "0" * 64}, "sha256 of .*damaged"),
        ("detector", {"objects": ["wedge", "brick", "cup"]}, "finds cup, which"),
        ("estimator", {"onnx_file": "x.onnx"}, r"x\.onnx is missing"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_refused(
    files: PipelineConfig, model: str, values: dict[str, Any], message: str
) -> None:
    rewrite(files, model, **values)
    with pytest.raises(ModelError, match=message):
        load_pipeline(files)


def test_detector_and_estimator_of_different_sets(files: PipelineConfig) -> None:
    library = load_objects(Path(files.objects_file))
    names = ["wedge", "brick"]
    rewrite(files, "estimator", objects=names, objects_hash=library.keypoints_hash(names))
    with pytest.raises(ModelError, match="Detector 'yolo' finds disc, which estimator 'heatnet'"):
        load_pipeline(files)


def test_objects_that_the_detector_never_finds_are_refused(files: PipelineConfig) -> None:
    """In the library alone: it would be looked for, never found, and nothing would say why."""
    rewrite(files, "detector", objects=["wedge", "brick"])
    message = "detector 'yolo' does not know disc; it finds wedge, brick"
    with pytest.raises(ConfigError, match=message):
        load_pipeline(replace(files, objects=("disc",)))
    pipeline = load_pipeline(replace(files, objects=("wedge",)))
    with pytest.raises(ConfigError, match=message):
        pipeline.update(replace(pipeline.config, objects=("wedge", "disc")))
    assert pipeline.config.objects == ("wedge",)


def test_missing_folder(files: PipelineConfig, tmp_path: Path) -> None:
    absent = replace(files.detector, model=os.fspath(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"Detector model .*absent.* not found"):
        load_pipeline(replace(files, detector=absent))
    (tmp_path / "empty").mkdir()
    empty = replace(files.detector, model=os.fspath(tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"no manifest\.yaml"):
        load_pipeline(replace(files, detector=empty))


def test_pipeline_type_is_what_load_gives(files: PipelineConfig) -> None:
    pipeline = load_pipeline(files)
    assert isinstance(pipeline, Pipeline)
    assert set(pipeline.engines) == {"detector", "estimator"}


def test_objects_that_are_not_asked_for_cost_nothing() -> None:
    world = World(("wedge", pose(-0.15, 0, 0.7)), ("brick", pose(0.15, 0, 0.8)))
    pipeline = world.pipeline(PipelineConfig(objects=("brick",)))
    result = pipeline.run(world.frame())
    assert (
        [p.object_id for p in result.poses] == ["brick"] == [d.object_id for d in result.detections]
    )
    asked = pipeline._estimator.engine.calls
    assert [len(call["object_index"]) for call in asked] == [1]
    pipeline.update(replace(pipeline.config, objects=("wedge",)))
    result = pipeline.run(world.frame(stamp_ns=33_000_000))
    assert [(p.object_id, p.instance) for p in result.poses] == [("wedge", 0)]
    with pytest.raises(ConfigError, match="Did you mean 'wedge'"):
        pipeline.update(replace(pipeline.config, objects=("wegde",)))
    assert pipeline.config.objects == ("wedge",)
    pipeline.close()


def test_narrowed_and_widened_again_ids_and_filters_go_together() -> None:
    """Ids are given anew, in another order: no filter may go on with another one's state."""
    truth = [("wedge", pose(x, 0.0, 0.8)) for x in (-0.15, 0.15)]
    world = World(*truth, ("brick", pose(0.0, -0.15, 0.7)))
    pipeline, config = world.pipeline(), PipelineConfig()
    for i in range(8):
        pipeline.run(world.frame(i * 20_000_000))
    pipeline.update(replace(config, objects=("brick",)))
    assert not pipeline._follower._missing
    for i in range(8, 9):
        result = pipeline.run(world.frame(i * 20_000_000))
        assert {d.object_id for d in result.detections} == {"brick"}
        assert not pipeline._follower._missing
    world.truth = [truth[1], truth[0], world.truth[2]]
    pipeline.update(config)
    pipeline._follower._looked_ns = None  # look at once
    for i in range(9, 18):
        result = pipeline.run(world.frame(i * 20_000_000))
        time.sleep(0.03)  # the search is beside the poses
        for raw, filtered in zip(result.poses, result.filtered, strict=True):
            off_m = raw.T_camera_object[:3, 3] - filtered.T_camera_object[:3, 3]
            assert np.linalg.norm(off_m) < 2e-3
    assert len(result.poses) == 3
    left_to_right = sorted((p.T_camera_object[0, 3], p.instance)
                           for p in result.poses if p.object_id == "wedge")  # fmt: skip
    assert [instance for _, instance in left_to_right] == [1, 0]  # else this test tests nothing


def test_filtered_poses_go_with_the_raw_ones_and_can_be_switched_off() -> None:
    world = World(("wedge", pose(-0.15, 0, 0.7)), ("brick", pose(0.15, 0, 0.8)))
    pipeline = world.pipeline()
    for i in range(3):
        result = pipeline.run(world.frame(stamp_ns=i * 33_000_000))
    names = [(p.object_id, p.instance) for p in result.poses]
    assert [(p.object_id, p.instance) for p in result.filtered] == names
    off = replace(pipeline.config.filter, enabled=False)
    pipeline.update(replace(pipeline.config, filter=off))
    assert pipeline.run(world.frame(stamp_ns=99_000_000)).filtered == ()
    pipeline.close()
