"""RVL, the run-length code of image_transport's ``compressedDepth rvl``, decoded with arrays.

Wilson, Fast Lossless Depth Image Compression, ISS 2017. A picture is, pixel by pixel, a number of
zeros, a number of others, the others, and again. Of the others the difference to the one before
(the first: to 0) is stored, its sign in the lowest bit (0, -1, 1, -2 are 0, 1, 2, 3). A number is
a row of nibbles, three bits each, the lowest first; the fourth bit says that more follow. Eight
nibbles, from high to low, are a little-endian word of 32 bits. Before them stand the width and
the height as uint32. There is no checksum: what an encoder never writes is refused, but a
difference that became another one goes unnoticed.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_SIZE = struct.Struct("<II")
# a number of pixels takes 8 nibbles at most (24 bits), a difference 6: 18 bits
_MAX_NIBBLES = 8


def read_rvl_size(content: bytes) -> tuple[int, int] | None:
    """Width and height; None where there are none, or so many pixels that none could be meant."""
    if len(content) < _SIZE.size:
        return None
    width, height = _SIZE.unpack_from(content)
    return (width, height) if 0 < width * height < 1 << (3 * _MAX_NIBBLES) else None


def decode_rvl(content: bytes) -> NDArray[np.uint16]:
    """HxW pixels. Raises ValueError, in words that follow ``got``, where it is damaged."""
    size = read_rvl_size(content)
    if size is None or (len(content) - _SIZE.size) % 4:
        raise ValueError("no size before whole words of 32 bits")
    width, height = size
    numbers, ends = _read_numbers(np.frombuffer(content, "<u4", offset=_SIZE.size))
    runs, heads = _follow_runs(numbers, width * height)
    used = int(heads[-1]) + 1 + int(runs[-1])  # where the last run of others ends
    if used > len(numbers):
        raise ValueError("a stream that ends too soon")
    if (ends[used - 1] >> 3) + 1 != (len(content) - _SIZE.size) // 4 or numbers[used:].any():
        raise ValueError("a stream that goes on behind the last pixel")
    is_value = np.ones(used, bool)
    is_value[heads], is_value[heads - 1] = False, False
    coded = numbers[:used][is_value]
    values = np.cumsum((coded >> 1) ^ -(coded & 1))
    if len(values) and not (values.min() > 0 and values.max() <= np.iinfo(np.uint16).max):
        raise ValueError("pixels outside of 16 bits")
    pixels = np.zeros(width * height, np.uint16)
    pixels[np.repeat(np.arange(len(runs)) % 2 == 1, runs)] = values
    return pixels.reshape(height, width)


def _read_numbers(words: NDArray[np.uint32]) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """All numbers of the stream and, in nibbles, where each of them ends."""
    packed = words.astype(">u4").view(np.uint8)
    nibbles = np.empty(2 * len(packed), np.uint8)
    nibbles[::2], nibbles[1::2] = packed >> 4, packed & 15
    ends = np.flatnonzero(nibbles < 8)
    if not len(ends) or ends[-1] + 1 != len(nibbles):
        raise ValueError("a number that does not end")
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > _MAX_NIBBLES:
        raise ValueError("a number that is too long")
    # from the last nibble, the highest, to the first
    numbers = nibbles[ends].astype(np.int32)
    nibbles &= 7
    longer = np.flatnonzero(lengths > 1)
    for back in range(1, int(lengths.max())):
        numbers[longer] = numbers[longer] << 3 | nibbles[ends[longer] - back]
        longer = longer[lengths[longer] > back + 1]
    return numbers, ends


def _follow_runs(
    numbers: NDArray[np.int32], pixels: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Lengths of the runs, of zeros and of others in turn, and where those of others are written.

    The next pair of lengths stands where the others of this one end: one after the other.
    """
    quick, at, left = numbers.data, 0, pixels
    runs: list[int] = []
    heads: list[int] = []
    while left:
        if at + 1 >= len(quick):
            raise ValueError("a stream that ends too soon")
        zeros, others = quick[at], quick[at + 1]
        left -= zeros + others
        if left < 0 or (at and not zeros) or (left and not others):
            raise ValueError("runs that do not fit the picture")
        runs += (zeros, others)
        heads.append(at + 1)
        at += 2 + others
    return np.array(runs, np.intp), np.array(heads, np.intp)
