from pathlib import Path

import cv2
import numpy as np
import pytest

from heatnet_ros.datasets.images import load_camera_file, load_depth_m, load_rgb
from heatnet_ros.errors import ConfigError, DataError

ROS_CALIBRATION = """\
image_width: 640
image_height: 480
camera_name: test
camera_matrix: {rows: 3, cols: 3, data: [600, 0, 320, 0, 610, 240, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0.001, 0, 0]}
"""


def test_camera_as_four_numbers():
    camera = load_camera_file("600, 610,320,240")
    assert camera.K.tolist() == [[600, 0, 320], [0, 610, 240], [0, 0, 1]]
    assert camera.size_wh is None
    with pytest.raises(ConfigError, match="expected four numbers"):
        load_camera_file("600,610,320")
    with pytest.raises(ConfigError, match="focal lengths must be above 0"):
        load_camera_file("0,610,320,240")


def test_bop_camera_json(tmp_path: Path):
    path = tmp_path / "camera.json"
    path.write_text('{"cx": 3, "cy": 4, "fx": 5, "fy": 6, "width": 20, "height": 16}')
    camera = load_camera_file(str(path))
    assert camera.K.tolist() == [[5, 0, 3], [0, 6, 4], [0, 0, 1]]
    camera.check_size((16, 20), path)
    with pytest.raises(DataError, match=r"is 16x20, the calibration .*camera\.json is for 20x16"):
        camera.check_size((20, 16), path)
    path.write_text('{"cx": 3, "cy": 4, "fx": 5}')
    with pytest.raises(ConfigError, match=r"camera\.json: missing or malformed 'fy'"):
        load_camera_file(str(path))
    with pytest.raises(ConfigError, match=r"nowhere\.json cannot be read"):
        load_camera_file(str(tmp_path / "nowhere.json"))


def test_ros_calibration_with_distortion(tmp_path: Path):
    path = tmp_path / "camera_info.yaml"
    path.write_text(ROS_CALIBRATION)
    camera = load_camera_file(str(path))
    assert camera.K.tolist() == [[600, 0, 320], [0, 610, 240], [0, 0, 1]]
    assert camera.distortion.coefficients == (0.1, -0.2, 0.001, 0, 0)
    assert camera.size_wh == (640, 480)


def test_float_depth_in_metres(tmp_path: Path):
    path = tmp_path / "depth.tiff"
    cv2.imwrite(str(path), np.full((4, 5), 0.75, np.float32))
    np.testing.assert_array_equal(load_depth_m(path, 1.0, (4, 5)), np.full((4, 5), 0.75))


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_that_is_cut_short_is_refused(tmp_path: Path, progressive):
    rgb = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    path = tmp_path / "photo.jpg"
    cv2.imwrite(str(path), rgb, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])
    whole = path.read_bytes()
    assert load_rgb(path).shape == rgb.shape
    path.write_bytes(whole + bytes(16))  # cameras pad their files
    assert load_rgb(path).shape == rgb.shape
    for length in (len(whole) - 2, len(whole) // 2, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"photo\.jpg cannot be decoded.*cut short"):
            load_rgb(path)
