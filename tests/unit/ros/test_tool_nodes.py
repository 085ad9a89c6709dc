import os
from pathlib import Path

import pytest

from heatnet_ros.ros.tool_nodes import use_large_frames_profile

VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


@pytest.fixture(autouse=True)
def no_profile(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is restored afterwards


def test_the_profile_is_set_for_fast_dds_2_and_3():
    use_large_frames_profile()
    for name in VARIABLES:
        assert Path(os.environ[name]).name == "fastdds_large_frames.xml"
        assert Path(os.environ[name]).is_file()


@pytest.mark.parametrize("name", VARIABLES)
def test_the_users_profile_stays(monkeypatch, name):
    monkeypatch.setenv(name, "mine.xml")
    use_large_frames_profile()
    assert [os.environ[n] for n in VARIABLES if os.environ[n]] == ["mine.xml"]
