"""The covariance of a pose in the light of its score and its object."""

import dataclasses

import numpy as np
import pytest
import yaml
from fakes import World, pose

from heatnet_ros.errors import ModelError
from heatnet_ros.manifest import load_manifest
from heatnet_ros.resources import find_resource
from heatnet_ros.types import PoseEstimate
from heatnet_ros.uncertainty import SCORE_EXPONENT, calibrate_covariance

C = np.diag([1e-6, 2e-6, 3e-6, 1e-4, 2e-4, 3e-4])


def estimate(score: float, covariance: np.ndarray | None = C) -> PoseEstimate:
    return PoseEstimate("mug", np.eye(4), score, 1.0, 0.5, "test", covariance=covariance)


def test_half_the_score_is_so_much_more_doubt() -> None:
    sure, doubtful = (calibrate_covariance(estimate(s), {"mug": 0.4}) for s in (0.8, 0.4))
    np.testing.assert_allclose(doubtful.covariance, 2**SCORE_EXPONENT * sure.covariance)
    np.testing.assert_allclose(
        calibrate_covariance(estimate(1.0), {"mug": 0.4}).covariance, 0.4 * C
    )


def test_an_object_without_a_factor_and_a_score_of_nothing() -> None:
    np.testing.assert_allclose(calibrate_covariance(estimate(1.0), {"can": 9.0}).covariance, C)
    assert np.isfinite(calibrate_covariance(estimate(0.0), {}).covariance).all()
    assert calibrate_covariance(estimate(0.5, None), {}).covariance is None


def test_the_pipeline_tells_the_manifests_factor() -> None:
    world = World(("wedge", pose(0, 0, 0.7)))
    pipeline = world.pipeline()
    (plain,) = pipeline.run(world.frame(stamp_ns=0)).poses
    pipeline.reset()
    estimator = pipeline._estimator
    estimator.manifest = dataclasses.replace(estimator.manifest, covariance_scale={"wedge": 4.0})
    result = pipeline.run(world.frame(stamp_ns=0))
    np.testing.assert_allclose(result.poses[0].covariance, 4.0 * plain.covariance)
    assert np.trace(result.filtered[0].covariance) > 3.0 * np.trace(plain.covariance)
    pipeline.close()


def test_the_shipped_rgbd_models_have_a_factor_for_every_object() -> None:
    for name in ("demo_heatnet_rgbd", "linemod_heatnet_rgbd"):
        manifest = load_manifest(find_resource(f"models/{name}", "Model"))
        assert sorted(manifest.covariance_scale) == sorted(manifest.objects)


@pytest.mark.parametrize("scales", [{"mug": "0.4"}, {"mug": 0.0}, {"mug": True}, {"teapot": 1.0}])
def test_a_manifest_with_another_factor_is_refused(tmp_path, scales: dict[str, object]) -> None:
    folder = find_resource("models/demo_heatnet_rgbd", "Model")
    content = yaml.safe_load((folder / "manifest.yaml").read_text())
    (tmp_path / content["onnx_file"]).symlink_to(folder / content["onnx_file"])
    text = yaml.safe_dump(content | {"covariance_scale": scales})
    (tmp_path / "manifest.yaml").write_text(text)
    with pytest.raises(ModelError, match="covariance_scale"):
        load_manifest(tmp_path)
