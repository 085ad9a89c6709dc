"""RVL: round trips through an encoder written as the paper says, and what is damaged."""

import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage

from heatnet_ros.errors import DataError
from heatnet_ros.ros.compressed_depth import compressed_to_depth_m, encode_depth_m
from heatnet_ros.ros.rvl import decode_rvl, read_rvl_size

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from rvl_encoder import encode_rvl

RNG = np.random.default_rng(0)


def slope(height, width, noise, holes):
    y, x = np.mgrid[:height, :width]
    depth = 800 + 0.5 * y + 0.2 * x + RNG.normal(0, noise, (height, width))
    depth[RNG.random(depth.shape) < holes] = 0
    return depth.astype(np.uint16)


PICTURES = {
    "smooth": slope(48, 64, 1, 0.0),
    "holes": slope(48, 64, 8, 0.1),
    "half of it": slope(47, 63, 8, 0.5),
    "any": RNG.integers(0, 65536, (30, 40)),
    "extremes": np.array([[65535, 1, 65535, 0], [0, 0, 1, 65535]]),
    "empty": np.zeros((5, 7)),
    "one pixel": np.array([[9]]),
    "wide": np.ones((1, 5000)),
    "begins with a hole": np.array([[0, 0, 5], [5, 0, 0]]),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_come_back_exactly(name):
    image = PICTURES[name].astype(np.uint16)
    coded = encode_rvl(image)
    assert read_rvl_size(coded) == image.shape[::-1]
    decoded = decode_rvl(coded)
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, image)


def test_the_layout_is_that_of_the_paper():
    """Written by hand: 2 zeros; 3 others, 5, 4 and 70; 1 zero; none.

    5 is +5, coded 10: 2 and more, 1; 4 is -1, coded 1; 70 is +66, coded 132: 4 and more, 0 and
    more, 2.
    """
    nibbles = "2 3  a 1  1  c 8 2  1 0".replace(" ", "")
    words = [int(nibbles[:8], 16), int(nibbles[8:].ljust(8, "0"), 16)]
    coded = struct.pack("<IIII", 3, 2, *words)
    np.testing.assert_array_equal(decode_rvl(coded), [[0, 0, 5], [4, 70, 0]])
    assert encode_rvl(np.array([[0, 0, 5], [4, 70, 0]])) == coded


def depth_message(encoding, image, head=bytes(12)):
    text = f"{encoding}; compressedDepth rvl"
    return CompressedImage(format=text, data=head + encode_rvl(image))


def test_millimetres_and_inverse_depth():
    image = PICTURES["holes"]
    depth = compressed_to_depth_m(depth_message("16UC1", image), "/depth")
    np.testing.assert_array_equal(np.rint(depth * 1000), image)
    head = encode_depth_m(np.full((2, 2), 1.0, np.float32))[1][:12]
    depth = compressed_to_depth_m(depth_message("32FC1", image, head), "/depth")
    np.testing.assert_allclose(depth[image > 0], 10100 / (image[image > 0] + 1009.0), rtol=1e-6)
    assert np.isnan(depth[image == 0]).all()
    with pytest.raises(DataError, match="header holds A 0, B 0"):
        compressed_to_depth_m(depth_message("32FC1", image), "/depth")


def test_another_size_than_colour_is_not_decoded():
    message = depth_message("16UC1", PICTURES["holes"])
    with pytest.raises(DataError, match="depth is 64x48, the colour image is 640x480"):
        compressed_to_depth_m(message, "/depth", (640, 480))


@pytest.mark.parametrize("name", ["smooth", "holes", "one pixel", "extremes"])
def test_what_is_cut_or_goes_on_is_refused(name):
    whole = bytes(depth_message("16UC1", PICTURES[name].astype(np.uint16)).data)
    lengths = {*range(21), *range(len(whole) - 40, len(whole))} & {*range(len(whole))}
    broken = [whole[:length] for length in lengths] + [whole + bytes(n) for n in (1, 4, 8)]
    for data in broken:
        message = CompressedImage(format="16UC1; compressedDepth rvl", data=data)
        with pytest.raises(DataError, match="/depth: expected 12 bytes of header and an RVL stre"):
            compressed_to_depth_m(message, "/depth")


@pytest.mark.parametrize(("width", "height", "nibbles", "match"), [
    (0, 0, "00", "no size"),
    (65535, 65535, "00", "no size"),
    (2, 2, "0420005", "goes on behind"),  # what stands behind the last pixel is no padding
    (5, 2, "0a122222", "ends too soon"),
    (2, 2, "050", "runs that do not fit"),
    (2, 2, "2000200", "runs that do not fit"),  # zeros, then zeros again
    (2, 2, "0120120120120", "runs that do not fit"),  # others, then others again
    (2, 2, "041222", "pixels outside"),  # 0 - 1
    (2, 2, "042122", "pixels outside"),  # 1 - 1: a hole among others
    (2, 2, "04effff3222", "pixels outside"),  # 65535 + 1
    (2, 2, "999999999999999904", "a number that is too long"),
    (2, 2, "04222228", "a number that does not end"),
])  # fmt: skip
def test_what_no_encoder_writes_is_refused(width, height, nibbles, match):
    digits = nibbles.ljust(-(-len(nibbles) // 8) * 8, "0")
    words = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
    with pytest.raises(ValueError, match=match):
        decode_rvl(struct.pack(f"<{2 + len(words)}I", width, height, *words))


def test_flipped_bits_give_pixels_or_are_refused():
    """Nothing else comes of them; a third is noticed by lengths that do not fit."""
    whole, refused = encode_rvl(PICTURES["holes"]), 0
    for _ in range(500):
        flipped = bytearray(whole)
        flipped[RNG.integers(8, len(whole))] ^= 1 << int(RNG.integers(8))
        try:
            assert decode_rvl(bytes(flipped)).shape == (48, 64)
        except ValueError:
            refused += 1
    assert refused > 100


def test_it_keeps_up_with_a_camera():
    """640x480 with noise and holes: 6 to 11 ms where it was written; far below 33 ms."""
    coded, times_s = encode_rvl(slope(480, 640, 8, 0.02)), []
    for _ in range(7):
        began_s = time.perf_counter()
        decode_rvl(coded)
        times_s.append(time.perf_counter() - began_s)
    assert min(times_s) < 0.03
