"""What chaos.py storms the node with: all there is, and right where it says right."""

import sys
from pathlib import Path

import pytest

from heatnet_ros.config import PipelineConfig, check_option
from heatnet_ros.errors import ConfigError
from heatnet_ros.options import list_options
from heatnet_ros.ros.node_config import NodeConfig

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))
import chaos_options

OBJECTS = ["mug", "valve"]
OPTIONS = list_options(NodeConfig, PipelineConfig)


@pytest.mark.parametrize("name", OPTIONS)
def test_right_values_are_taken_and_wrong_ones_refused(name):
    option = OPTIONS[name]
    right = chaos_options.right_values(option, OBJECTS)
    for value in right:
        check_option(option.field, option.kind, value, "here")
    for value in chaos_options.wrong_values(option):
        with pytest.raises(ConfigError):
            check_option(option.field, option.kind, value, "here")
    if name in chaos_options.LIVE:
        assert any(value != option.field.default for value in right), "nothing would change"


def test_every_live_option_is_stormed():
    assert {"objects", "publish_tf", "follow.enabled", "filter.max_gated"} < set(chaos_options.LIVE)
    live = {name for name, option in OPTIONS.items() if option.field.metadata["live"]}
    assert set(chaos_options.LIVE) == live


def test_what_is_restored_is_what_the_node_was_started_with():
    config = PipelineConfig(objects=("mug",), objects_file="other.yaml")
    values = chaos_options.flatten(NodeConfig(marker_lifetime_s=3.0), config)
    assert set(values) == set(OPTIONS)
    assert values["objects"] == ["mug"] and values["objects_file"] == "other.yaml"
    assert values["marker_lifetime_s"] == 3.0 and values["gate.min_inliers"] == 8
