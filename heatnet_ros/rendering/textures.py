"""Procedural textures: there is no photo collection, so backgrounds are made."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.types import ImageU8

SIZE = 512
Texture = NDArray[np.float32]


def random_texture(rng: np.random.Generator) -> ImageU8:
    """One 512x512x3 uint8 texture: cloth, wood, print, tiles, a littered desk."""
    makers = (_clouds, _wood, _print, _tiles, _clouds, _desk, _desk)
    texture = makers[int(rng.integers(len(makers)))](rng)
    return np.clip(texture, 0, 255).astype(np.uint8)


def _color(rng: np.random.Generator) -> Texture:
    hsv = np.array([[[rng.integers(180), rng.integers(0, 200), rng.integers(40, 256)]]], np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0], np.float32)


def _noise(rng: np.random.Generator, cells_xy: tuple[int, int]) -> Texture:
    """Smooth noise 512x512 in 0..1 with the given number of cells."""
    coarse = rng.random((cells_xy[1], cells_xy[0])).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), np.float32)


def _clouds(rng: np.random.Generator) -> Texture:
    octaves = [_noise(rng, (n, n)) / (i + 1) for i, n in enumerate((3, 8, 24, 90))]
    mix = np.sum(octaves, axis=0)[..., None]
    mix = (mix - mix.min()) / np.ptp(mix)
    return np.asarray(_color(rng) * mix + _color(rng) * (1 - mix), np.float32)


def _wood(rng: np.random.Generator) -> Texture:
    rings = _noise(rng, (3, 40)) + 0.4 * _noise(rng, (6, 200))
    mix = (np.sin(rings * rng.uniform(4, 20)) * 0.5 + 0.5)[..., None]
    base = np.array([rng.uniform(120, 230), rng.uniform(90, 170), rng.uniform(50, 130)])
    return np.asarray(base * (0.7 + 0.3 * mix), np.float32)


def _tiles(rng: np.random.Generator) -> Texture:
    n = int(rng.integers(4, 24))
    mask = (np.indices((n, n)).sum(axis=0) % 2).astype(np.float32)
    mix = cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)[..., None]
    return np.asarray(_color(rng) * mix + _color(rng) * (1 - mix), np.float32)


def _print(rng: np.random.Generator) -> Texture:
    """Paper with shapes: magazines, labels, fiducial boards."""
    canvas = np.full((SIZE, SIZE, 3), rng.uniform(150, 255), np.float32)
    for _ in range(int(rng.integers(15, 80))):
        color = tuple(float(c) for c in (_color(rng) if rng.random() < 0.6 else np.zeros(3)))
        x, y = (int(v) for v in rng.integers(0, SIZE, 2))
        w, h = (int(v) for v in rng.integers(6, 110, 2))
        kind = rng.integers(3)
        if kind == 0:
            cv2.rectangle(canvas, (x, y), (x + w, y + h), color, -1)
        elif kind == 1:
            cv2.ellipse(canvas, (x, y), (w // 2, h // 2), float(w), 0, 360, color, -1)
        else:
            cv2.line(canvas, (x, y), (x + w, y + h), color, int(rng.integers(1, 8)))
    return canvas


def _desk(rng: np.random.Generator) -> Texture:
    """Magazines and sheets lying about on a desk: strong edges beside all that stands there."""
    canvas = _wood(rng) if rng.random() < 0.5 else _clouds(rng)
    for _ in range(int(rng.integers(4, 11))):
        sheet = _print(rng)
        side = rng.uniform(0.15, 0.5)
        angle, (x, y) = rng.uniform(0, 360), rng.uniform(0, SIZE, 2)
        M = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), angle, side)
        M[:, 2] += [x - SIZE / 2, y - SIZE / 2]
        mask = np.full((SIZE, SIZE), 255, np.uint8)
        placed = cv2.warpAffine(sheet, M, (SIZE, SIZE), flags=cv2.INTER_AREA)
        canvas = np.where(
            cv2.warpAffine(mask, M, (SIZE, SIZE), flags=cv2.INTER_NEAREST)[..., None] > 0,
            placed * rng.uniform(0.4, 1.0),
            canvas,
        )
    return canvas
