"""Is a JPEG or PNG whole, and how large is it? Read from its marks, without decoding it.

OpenCV fills what is missing with grey, takes a PNG with wrong checksums for right, says nothing of
it, and allocates whatever size a header claims.
"""

from __future__ import annotations

import struct
import zlib

from heatnet_ros.types import ImageU8

JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
# cameras pad their buffers behind the end of a JPEG
_TAIL = 64
# the frame headers of all kinds of JPEG; between them lie a table and two reserved marks
_FRAME_MARKS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN_MARK = 0xDA
# what a decoder makes of blocks whose data never came
_MISSING_GREY = 128


def read_size(content: bytes) -> tuple[int, int] | None:
    """Width and height of a whole JPEG or PNG; None for one that is damaged or truncated.

    Damage in the scan of a JPEG, which has no checksum, is not seen (but see ``is_cut_off``).
    Raises ValueError where the data begin like neither.
    """
    if content.startswith(JPEG_START):
        return _read_jpeg(content) if _JPEG_END in content[-_TAIL:] else None
    if content.startswith(_PNG_START):
        return _read_png(content)
    raise ValueError("begins neither like a JPEG nor like a PNG")


def is_cut_off(pixels: ImageU8) -> bool:
    """Whether a decoded JPEG (HxWx3) ends in rows of exactly the grey that stands for no data.

    So do those that lost packets on their way from the sensor and whose driver ends them all the
    same. Of the lowest blocks' rows half are looked at: colour of the row above may reach over.
    """
    rows = min(4, pixels.shape[0] % 8 or 8)
    return bool((pixels[-rows:] == _MISSING_GREY).all())


def _read_jpeg(content: bytes) -> tuple[int, int] | None:
    """From mark to mark up to the scan."""
    size, at = None, len(JPEG_START)
    while at + 4 <= len(content) and content[at] == 0xFF:
        mark = content[at + 1]
        if mark == 0xFF:  # a fill byte
            at += 1
            continue
        if mark == _SCAN_MARK:
            return size
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        if mark in _FRAME_MARKS and length >= 8 and at + 9 <= len(content):
            height, width = struct.unpack_from(">HH", content, at + 5)
            size = width, height
        at += 2 + length
    return None


def _read_png(content: bytes) -> tuple[int, int] | None:
    """From chunk to chunk, checksums compared, up to IEND."""
    size, at = None, len(_PNG_START)
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 8 + length
        if end + 4 > len(content):
            return None
        if zlib.crc32(memoryview(content)[at + 4 : end]) != int.from_bytes(
            content[end : end + 4], "big"
        ):
            return None
        if kind == b"IHDR" and length == 13:
            size = struct.unpack_from(">II", content, at + 8)
        if kind == b"IEND":
            return size
        at = end + 4
    return None
