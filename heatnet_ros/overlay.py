"""Drawing poses into an image: mesh outline, cuboid, axes, keypoints and labels. No OpenGL."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import project
from heatnet_ros.label_layout import place_labels
from heatnet_ros.mesh import Mesh
from heatnet_ros.objects import ObjectLibrary, ObjectModel
from heatnet_ros.types import (
    Distortion,
    FloatArray,
    ImageU8,
    Keypoints,
    PoseEstimate,
    Rejection,
)

Color = tuple[int, int, int]

# distinct on most backgrounds, none of them an axis colour
_PALETTE: tuple[Color, ...] = (
    (255, 200, 0), (0, 220, 255), (255, 90, 220), (170, 255, 60), (255, 130, 40),
    (150, 130, 255), (0, 255, 170), (255, 160, 160),
)  # fmt: skip
_AXIS_COLORS: tuple[Color, ...] = ((255, 40, 40), (40, 220, 40), (60, 110, 255))  # x, y, z
_GREY: Color = (175, 175, 175)
_SHIFT = 4  # fixed-point bits of OpenCV's drawing: 1/16 pixel
_LINE_SAMPLES = 17  # points along a straight edge, which a lens bends
_DASH_PERIOD_PX = 16.0
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42
_FAR_PX = 1e4  # fixed-point coordinates stay far from overflow
_CUBOID_EDGES = tuple((a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b).bit_count() == 1)

_Label = tuple[str, FloatArray, Color]  # text, box x0, y0, x1, y1 of what it names


def draw_poses(
    rgb: ImageU8,
    K: FloatArray,
    distortion: Distortion,
    poses: Sequence[PoseEstimate],
    library: ObjectLibrary,
    with_score: bool = True,
    rejections: Sequence[Rejection] = (),
) -> ImageU8:
    """Return a copy of an HxWx3 RGB image with every pose drawn.

    Per object: the outline of its mesh (left out where the library has no mesh), the cuboid of
    ``bounds_m``, axes (x red, y green, z blue), keypoints from red (unsure) to green (sure), and
    name, instance and score. ``K`` and ``distortion`` are those of the image. rejections:
    each with a detection as a dashed grey box and its reason, below the poses.
    """
    image = rgb.copy()
    rejected = _draw_boxes(image, rejections)
    colors = {name: _PALETTE[i % len(_PALETTE)] for i, name in enumerate(library.objects)}
    # far to near, so that the near object is on top
    ordered = sorted(poses, key=lambda pose: -float(pose.T_camera_object[2, 3]))
    for pose in ordered:
        model, color = library[pose.object_id], colors[pose.object_id]
        _draw_cuboid(image, pose.T_camera_object, model, K, distortion, color)
        mesh = _load_mesh(model)
        if mesh is not None:
            outline = silhouette(mesh, pose.T_camera_object, K, distortion, image.shape[:2])
            _draw_outline(image, outline, color)
        if pose.keypoints is not None:
            _draw_keypoints(image, pose.keypoints)
        _draw_axes(image, pose.T_camera_object, 0.4 * model.diameter_m, K, distortion)
    labels: list[_Label] = []
    for pose in ordered[::-1]:
        corners = _project_object(
            _corners(library[pose.object_id]), pose.T_camera_object, K, distortion
        )
        if np.all(np.isfinite(corners)):
            text = f"{pose.object_id} #{pose.instance}"
            text += f" {pose.score:.2f}" if with_score else ""
            box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
            labels.append((text, box, colors[pose.object_id]))
    _draw_labels(image, labels + rejected)
    return image


def _draw_boxes(image: ImageU8, rejections: Sequence[Rejection]) -> list[_Label]:
    """Draw the dashed boxes; returns the labels that belong to them."""
    labels: list[_Label] = []
    for rejection in rejections:
        if rejection.detection is None:
            continue
        x0, y0, x1, y1 = box = rejection.detection.bbox_xyxy_px
        loop = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]])
        for start, end in pairwise(loop):
            _draw_dashed(image, start, end)
        labels.append((f"{rejection.object_id}: {rejection.reason.value}", np.array(box), _GREY))
    return labels


def silhouette(
    mesh: Mesh,
    T_camera_object: FloatArray,
    K: FloatArray,
    distortion: Distortion,
    size_hw: tuple[int, ...],
) -> NDArray[np.uint8]:
    """Fill what a mesh covers in an image: HxW uint8, 255 inside.

    Triangles that reach behind the camera are left out.
    """
    mask = np.zeros(size_hw[:2], np.uint8)
    pixels = _project_object(mesh.vertices_m, T_camera_object, K, distortion)
    triangles = pixels[mesh.faces]
    triangles = triangles[np.all(np.isfinite(triangles), axis=(1, 2))]
    # one by one: fillPoly of a list fills by parity, so overlapping triangles would cancel
    for triangle in _fixed_point(triangles):
        cv2.fillConvexPoly(mask, triangle, 255, cv2.LINE_8, _SHIFT)
    return mask


@lru_cache(maxsize=32)
def _load_mesh(model: ObjectModel) -> Mesh | None:
    """Read each mesh once: a CAD file takes longer to read than an image to draw."""
    return model.load_mesh()


def _project_object(
    points_m: FloatArray, T_camera_object: FloatArray, K: FloatArray, distortion: Distortion
) -> FloatArray:
    return project(se3.transform(T_camera_object, points_m), K, distortion)


def _fixed_point(points_px: FloatArray) -> NDArray[np.int32]:
    clipped = np.clip(points_px, -_FAR_PX, _FAR_PX)
    return np.asarray(np.rint(clipped * (1 << _SHIFT)), np.int32)


def _corners(model: ObjectModel) -> FloatArray:
    """8x3; bit i of the index says which end of axis i."""
    return np.array(
        [[model.bounds_m[(corner >> i) & 1, i] for i in range(3)] for corner in range(8)]
    )


def _draw_segment(
    image: ImageU8,
    ends_m: FloatArray,
    T_camera_object: FloatArray,
    K: FloatArray,
    distortion: Distortion,
    color: Color,
    thickness: int,
) -> None:
    """Draw a straight edge (2x3, object frame) as the lens shows it."""
    along = np.linspace(0.0, 1.0, _LINE_SAMPLES)[:, None]
    points = _project_object(
        ends_m[0] * (1 - along) + ends_m[1] * along, T_camera_object, K, distortion
    )
    points = points[np.all(np.isfinite(points), axis=1)]
    if len(points) > 1:
        line = [_fixed_point(points)]
        cv2.polylines(image, line, False, color, thickness, cv2.LINE_AA, _SHIFT)


def _draw_cuboid(
    image: ImageU8,
    T_camera_object: FloatArray,
    model: ObjectModel,
    K: FloatArray,
    distortion: Distortion,
    color: Color,
) -> None:
    corners = _corners(model)
    for a, b in _CUBOID_EDGES:
        _draw_segment(image, corners[[a, b]], T_camera_object, K, distortion, color, 1)


def _draw_axes(
    image: ImageU8,
    T_camera_object: FloatArray,
    length_m: float,
    K: FloatArray,
    distortion: Distortion,
) -> None:
    tips_z = (T_camera_object[:3, :3] * length_m)[2]
    for i in np.argsort(-tips_z):  # the axis that points at the camera last
        ends = np.stack([np.zeros(3), np.eye(3)[i] * length_m])
        _draw_segment(image, ends, T_camera_object, K, distortion, (0, 0, 0), 4)
        _draw_segment(image, ends, T_camera_object, K, distortion, _AXIS_COLORS[i], 2)


def _draw_outline(image: ImageU8, mask: NDArray[np.uint8], color: Color) -> None:
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, contours, -1, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.drawContours(image, contours, -1, color, 1, cv2.LINE_AA)


def _draw_keypoints(image: ImageU8, keypoints: Keypoints) -> None:
    finite = np.all(np.isfinite(keypoints.points_px), axis=1)
    centres = _fixed_point(keypoints.points_px[finite])
    for (x, y), confidence in zip(centres.tolist(), keypoints.confidence[finite], strict=True):
        sure = float(np.clip(confidence, 0.0, 1.0))
        color = (round(255 * min(1.0, 2 - 2 * sure)), round(255 * min(1.0, 2 * sure)), 0)
        cv2.circle(image, (x, y), 3 << _SHIFT, (0, 0, 0), -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(image, (x, y), 2 << _SHIFT, color, -1, cv2.LINE_AA, _SHIFT)


def _draw_dashed(image: ImageU8, start: FloatArray, end: FloatArray) -> None:
    length = float(np.linalg.norm(end - start))
    dashes = max(int(length / _DASH_PERIOD_PX), 1)
    for i in range(dashes):
        a, b = i / dashes, (i + 0.4) / dashes
        ends = _fixed_point(np.stack([start + (end - start) * a, start + (end - start) * b]))
        cv2.polylines(image, [ends], False, (40, 40, 40), 3, cv2.LINE_AA, _SHIFT)
        cv2.polylines(image, [ends], False, _GREY, 1, cv2.LINE_AA, _SHIFT)


def _draw_labels(image: ImageU8, labels: Sequence[_Label]) -> None:
    """Write texts on dark plates, each near what it names."""
    if not labels:
        return
    (_, height), baseline = cv2.getTextSize("Xg", _FONT, _FONT_SCALE, 1)
    plate_h = int(height + baseline + 4)
    sizes = [
        (cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)[0][0] + 6, plate_h) for text, _, _ in labels
    ]
    boxes = np.stack([box for _, box, _ in labels])
    places = place_labels(boxes, sizes, (image.shape[1], image.shape[0]))
    for (text, _, color), (x0, y0, x1, y1) in zip(labels, places.tolist(), strict=True):
        plate = image[y0:y1, x0:x1]
        plate[:] = plate // 6
        origin = (x0 + 3, y1 - plate_h // 3)
        cv2.putText(image, text, origin, _FONT, _FONT_SCALE, color, 1, cv2.LINE_AA)
