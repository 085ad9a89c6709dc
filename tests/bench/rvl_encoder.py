"""RVL as its paper writes it, number by number: what the decoder is measured against."""

from __future__ import annotations

import struct

import numpy as np


def encode_rvl(image: np.ndarray) -> bytes:
    """HxW uint16 -> width, height and stream, as image_transport puts them behind its header."""
    nibbles: list[int] = []

    def write(number: int) -> None:
        while number > 7:
            nibbles.append(number & 7 | 8)
            number >>= 3
        nibbles.append(number)

    pixels, at, before = image.ravel().tolist(), 0, 0
    while at < len(pixels):
        begin = at
        while at < len(pixels) and pixels[at] == 0:
            at += 1
        write(at - begin)
        begin = at
        while at < len(pixels) and pixels[at] != 0:
            at += 1
        write(at - begin)
        for pixel in pixels[begin:at]:
            difference = pixel - before
            write(2 * difference if difference >= 0 else -2 * difference - 1)
            before = pixel
    nibbles += [0] * (-len(nibbles) % 8)
    digits = "".join(f"{nibble:x}" for nibble in nibbles)
    words = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
    height, width = image.shape
    return struct.pack(f"<{2 + len(words)}I", width, height, *words)
