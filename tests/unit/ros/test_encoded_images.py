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


def cut_off(content, share):
    """The scan ends early, with an end mark, as a driver does that lost packets of the sensor."""
    begin = content.index(b"\xff\xda") + 14
    return content[: begin + round(share * (len(content) - begin))] + b"\xff\xd9"


@pytest.mark.parametrize("size_hw", [(30, 50), (48, 64), (108, 64)])
@pytest.mark.parametrize(
    "options", [[], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2], [cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444], [cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422]], ids=["420", "restarts", "444", "422"],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_without_its_lowest_rows_is_refused(size_hw, options, channels):
    pixels = RNG.integers(0, 256, (*size_hw, channels), dtype=np.uint8)
    content = cv2.imencode(".jpg", pixels, options)[1].tobytes()
    assert (
        compressed_to_rgb(CompressedImage(format="jpeg", data=content), "/c").shape[:2] == size_hw
    )
    for share in (0.0, 0.2, 0.4):
        damaged = cut_off(content, share)
        assert read_size(damaged) == size_hw[::-1], "its marks are whole"
        with pytest.raises(DataError, match=r"/c: .* that end before the lowest rows"):
            compressed_to_rgb(CompressedImage(format="jpeg", data=damaged), "/c")


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_grey_in_an_image_is_no_damage(kind):
    """A grey floor with noise; in a PNG, which has checksums, also one without."""
    floor = np.full((48, 64, 3), 128, np.uint8)
    floor[:8] = 200
    if kind == ".jpg":
        floor[44:] += RNG.integers(0, 3, (4, 64, 3), dtype=np.uint8)
    message = CompressedImage(format=kind, data=cv2.imencode(kind, floor)[1].tobytes())
    assert compressed_to_rgb(message, "/c").shape == (48, 64, 3)


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
