"""Sizes of whole JPEG and PNG files; damage that OpenCV does not tell."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage

from heatnet_ros.errors import DataError
from heatnet_ros.ros.encoded_images import read_size
from heatnet_ros.ros.messages import compressed_to_rgb

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (30, 50, 3), dtype=np.uint8)
KINDS = {
    "jpeg": (".jpg", []),
    "grey jpeg": (".jpg", []),
    "progressive jpeg": (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    "jpeg with restarts": (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
    "png": (".png", []),
}


def encode(kind):
    extension, options = KINDS[kind]
    pixels = PIXELS[..., 0] if "grey" in kind else PIXELS
    return cv2.imencode(extension, pixels, options)[1].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_image_has_its_size(kind):
    content = encode(kind)
    assert read_size(content) == (50, 30)
    if kind != "png":
        assert read_size(content + bytes(40)) == (50, 30), "padded by the camera"
        assert read_size(content[:2] + b"\xff\xff" + content[2:]) == (50, 30), "fill bytes"


@pytest.mark.parametrize("kind", KINDS)
def test_no_size_at_any_cut(kind):
    content = encode(kind)
    for length in range(10, len(content) - 1, 7):
        assert read_size(content[:length]) is None


def test_what_is_no_image():
    for content in (b"", b"\xff", b"hello", encode("png")[1:], encode("jpeg")[2:]):
        with pytest.raises(ValueError, match="neither"):
            read_size(content)


def test_every_flipped_byte_of_a_png_is_seen():
    """OpenCV gives an image for many of them."""
    content, silent = encode("png"), 0
    for at in range(8, len(content), 13):
        damaged = bytearray(content)
        damaged[at] ^= 0x10
        assert read_size(bytes(damaged)) is None
        silent += cv2.imdecode(np.frombuffer(damaged, np.uint8), cv2.IMREAD_COLOR) is not None
    assert silent > 0


def claim(side):
    """A PNG of a few bytes whose header, checksum and all, claims a square image."""
    content = bytearray(encode("png"))
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize("side", [49, 20_000, 40_000])
def test_a_claimed_size_is_not_decoded(side):
    """20000 x 20000 would take 1.2 GB, and 40000 x 40000 raises in OpenCV."""
    message = CompressedImage(format="png", data=claim(side))
    with pytest.raises(DataError, match=rf"/c: the image is {side}x{side}, CameraInfo .* 50x30"):
        compressed_to_rgb(message, "/c", (50, 30))


def test_the_right_size_is_decoded():
    message = CompressedImage(format="png", data=encode("png"))
    rgb = compressed_to_rgb(message, "/c", (50, 30))
    np.testing.assert_array_equal(rgb, PIXELS[..., ::-1])
