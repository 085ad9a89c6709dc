from pathlib import Path

import pytest

from heatnet_ros.checks.files import check_parameters
from heatnet_ros.checks.finding import Level
from heatnet_ros.config import PipelineConfig
from heatnet_ros.errors import ConfigError
from heatnet_ros.params_file import load_known_params, load_params
from heatnet_ros.ros.node_config import NodeConfig


@pytest.fixture
def write(tmp_path: Path):
    def write_text(text: str) -> Path:
        path = tmp_path / "pose.yaml"
        path.write_text(text)
        return path

    return write_text


def test_nested_and_dotted_names_and_node_options(write):
    path = write(
        "/**:\n  ros__parameters:\n    objects_file: a.yaml\n    detector: {model: m}\n"
        "    gate.min_inliers: 9\n    gate: {min_score: 1}\n    autostart: true\n"
        "    use_depth: true\n    use_sim_time: false\n    qos_overrides./tf.depth: 3\n"
    )
    config = load_params(path)
    assert config.objects_file == "a.yaml"
    assert config.detector.model == "m"
    assert (config.gate.min_inliers, config.gate.min_score) == (9, 1.0)
    assert config.estimator == PipelineConfig().estimator


def test_the_nodes_own_section_goes_first_and_others_do_not_count(write):
    path = write(
        "pose_node:\n  ros__parameters: {gate: {min_inliers: 11}}\n"
        "/**:\n  ros__parameters: {gate: {min_inliers: 5, min_score: 0.5}}\n"
        "synthetic_camera:\n  ros__parameters: {rate_hz: 10.0}\n"
    )
    gate = load_params(path).gate
    assert (gate.min_inliers, gate.min_score) == (11, 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/**: {ros__parameters: {detector: {modell: m}}}", "'modell' in .*Did you mean 'model'"),
        ("/**: {ros__parameters: {objects_fil: m}}", "Did you mean 'objects_file'"),
        ("/**: {ros__parameters: {gate: {min_score: 2.0}}}", r"expected 0\.0 to 1\.0, got 2\.0"),
        ("/**: {ros__parameters: {autostart: 7}}", "'autostart' in .* expected bool, got 7"),
        ("/**: {ros__parameters: {use_depth: maybe}}", "expected one of auto, true, false"),
        ("/**: {parameters: {}}", "section '/\\*\\*': expected a mapping 'ros__parameters'"),
        ("objects_file: a.yaml", "expected a section '/\\*\\*' or 'pose_node'.*objects_file"),
        ("/**: {ros__parameters: {gate: 1, gate.min_score: 0.1}}", "as a value and as a group"),
    ],
)
def test_wrong_files(write, text: str, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        load_params(write(text))
    assert "pose.yaml" in str(caught.value)


def test_the_node_accepts_parameters_of_other_nodes_and_so_do_doctor_and_predict(write):
    """Under /** others have theirs; a value of the node's own that is wrong is an error still."""
    path = write(
        "/**: {ros__parameters: {laser: {rate: 3.0}, gate: {min_scor: 0.4, min_score: 0.6}}}"
    )
    node, pipeline, unknown = load_known_params(path)
    assert pipeline.gate.min_score == 0.6 and node == NodeConfig()
    assert unknown["gate.min_scor"] == "Did you mean 'gate.min_score'?"
    assert list(unknown) == ["laser.rate", "gate.min_scor"]
    parameters, read = check_parameters(str(path))
    assert read.level is Level.OK and parameters.unknown == unknown
    with pytest.raises(ConfigError, match="expected bool, got 7"):
        load_known_params(write("/**: {ros__parameters: {autostart: 7}}"))
