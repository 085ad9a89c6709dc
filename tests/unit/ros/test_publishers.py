import pytest

from heatnet_ros.errors import ConfigError
from heatnet_ros.ros.publishers import topic_names


def test_names_become_valid_topic_tokens():
    names = topic_names(["7 up", "obj__x", "mug", "Kanne-ä"])
    assert names == {"7 up": "object_7_up", "obj__x": "obj_x", "mug": "mug", "Kanne-ä": "Kanne_"}


def test_objects_that_would_share_a_topic_are_refused():
    with pytest.raises(ConfigError, match="'a b' and 'a-b' would both be published as 'a_b'"):
        topic_names(["a b", "a-b"])
