"""``compressedDepth``: round trips, the header's layout byte by byte, and what is damaged."""

import struct

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage

from heatnet_ros.errors import DataError
from heatnet_ros.ros.compressed_depth import (
    compressed_to_depth_m,
    encode_depth_m,
    encode_depth_mm,
)


def message(encoded, **changes):
    text, data = encoded
    return CompressedImage(**{"format": text, "data": data} | changes)


@pytest.fixture
def depth_mm():
    rng = np.random.default_rng(0)
    depth = rng.integers(200, 9000, (48, 64)).astype(np.uint16)
    depth[:4] = 0
    return depth


def test_millimetres_come_back_exactly(depth_mm):
    depth = compressed_to_depth_m(message(encode_depth_mm(depth_mm)), "/depth")
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(np.rint(depth * 1000), depth_mm)


def test_metres_come_back_within_a_step_of_the_inverse_depth():
    depth = np.linspace(0.16, 9.9, 64 * 48).reshape(48, 64).astype(np.float32)
    depth[0, :4] = 0, np.nan, np.inf, 12.0
    back = compressed_to_depth_m(message(encode_depth_m(depth)), "/depth")
    assert np.isnan(back[0, :4]).all() and np.isfinite(back.ravel()[4:]).all()
    error = np.abs(back - depth).ravel()[4:]
    step = (depth.ravel()[4:].astype(float)) ** 2 / 10100
    assert (error <= 1.01 * step + 1e-5).all() and error.max() > 1e-3


def test_the_layout_is_that_of_image_transport():
    """int32, float A, float B, PNG; written by hand from depth = A / (pixel - B)."""
    pixels = np.array([[0, 1, 5000], [20000, 65535, 9091]], np.uint16)
    a, b = 10100.0, -1009.0
    png = cv2.imencode(".png", pixels)[1].tobytes()
    data = struct.pack("<i", 0) + struct.pack("<ff", a, b) + png
    text = "32FC1; compressedDepth png"
    depth = compressed_to_depth_m(CompressedImage(format=text, data=data), "/depth")
    assert np.isnan(depth[0, 0])
    wanted = a / (pixels[pixels > 0].astype(float) - b)
    np.testing.assert_allclose(depth[pixels > 0], wanted, rtol=1e-6)
    assert depth[1, 2] == pytest.approx(1.0)  # 10100 / (9091 + 1009)
    head = encode_depth_m(np.full((2, 2), 1.0, np.float32))[1][:12]
    assert struct.unpack("<iff", head) == (0, a, b)


@pytest.mark.parametrize("text", ["16UC1", "16UC1; compressedDepth", "mono16; compressedDepth png"])
def test_older_forms_of_the_format_are_read(depth_mm, text):
    encoded = message(encode_depth_mm(depth_mm), format=text)
    np.testing.assert_array_equal(
        np.rint(compressed_to_depth_m(encoded, "/depth") * 1000), depth_mm
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("16UC1; compressedDepth zstd", r"/depth: format is '16UC1; compressedDepth zstd'.*or rvl"),
        ("16UC1; compressedDepth rvl", "an RVL stream behind them"),
        ("bgr8; jpeg compressed bgr8", r"/depth: format is 'bgr8; jpeg.*expected '16UC1"),
        ("", r"/depth: format is ''"),
    ],
)
def test_other_formats_are_refused_with_the_remedy(depth_mm, text, match):
    with pytest.raises(DataError, match=match):
        compressed_to_depth_m(message(encode_depth_mm(depth_mm), format=text), "/depth")


@pytest.mark.parametrize("length", [0, 5, 12, 13, 16, 19, 20, 60, -20])
def test_truncated_data_is_refused(depth_mm, length):
    text, data = encode_depth_mm(depth_mm)
    with pytest.raises(DataError, match=r"/depth: expected 12 bytes of header and a PNG"):
        compressed_to_depth_m(CompressedImage(format=text, data=data[:length]), "/depth")


def test_a_png_of_eight_bits_is_refused():
    png = cv2.imencode(".png", np.full((4, 4), 7, np.uint8))[1].tobytes()
    broken = CompressedImage(format="16UC1; compressedDepth png", data=bytes(12) + png)
    with pytest.raises(DataError, match=r"\(4, 4\) uint8"):
        compressed_to_depth_m(broken, "/depth")


def test_a_header_without_quantisation_is_refused(depth_mm):
    encoded = message(encode_depth_mm(depth_mm), format="32FC1; compressedDepth png")
    with pytest.raises(DataError, match=r"compressedDepth header holds A 0, B 0"):
        compressed_to_depth_m(encoded, "/depth")


def test_depth_without_a_valid_pixel_is_refused():
    with pytest.raises(DataError, match="no valid pixel"):
        compressed_to_depth_m(message(encode_depth_mm(np.zeros((4, 4), np.uint16))), "/depth")


@pytest.mark.parametrize("at", range(12))
def test_a_flipped_bit_of_the_header_is_refused_or_moves_nothing(at):
    """A few of them gave depth that was wrong by metres."""
    metres = np.linspace(0.2, 5.0, 64 * 48).reshape(48, 64).astype(np.float32)
    text, data = encode_depth_m(metres)
    right = compressed_to_depth_m(CompressedImage(format=text, data=data), "/depth")
    for bit in range(8):
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit
        try:
            got = compressed_to_depth_m(CompressedImage(format=text, data=bytes(flipped)), "/depth")
        except DataError as error:
            assert "compressedDepth header holds A" in str(error) and at >= 4
        else:
            np.testing.assert_allclose(got, right, atol=0.01, err_msg=f"bit {bit}")


@pytest.mark.parametrize("max_depth_m", [1.0, 4.1, 7.35, 10.0, 65.535, 100.0])
@pytest.mark.parametrize("quantization", [1.0, 20.5, 100.0, 150.0])
def test_headers_of_other_parameters_are_read(max_depth_m, quantization):
    """As image_transport computes them, in float32."""
    a = np.float32(quantization) * (np.float32(quantization) + np.float32(1))
    b = np.float32(1) - a / np.float32(max_depth_m)
    png = cv2.imencode(".png", np.full((4, 4), 50, np.uint16))[1].tobytes()
    data = struct.pack("<iff", 0, a, b) + png
    text = "32FC1; compressedDepth png"
    depth = compressed_to_depth_m(CompressedImage(format=text, data=data), "/depth")
    np.testing.assert_allclose(depth, float(a) / (50 - float(b)), rtol=1e-6)
