"""Pictures of the report: training images, overlays of the evaluation, and its worst cases."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError
from heatnet_ros.evaluate import TruePose
from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.onboard.options import Places
from heatnet_ros.overlay import silhouette
from heatnet_ros.predict_inputs import InputImage, list_split_inputs
from heatnet_ros.types import FloatArray

Image = NDArray[np.uint8]

TRAINING_IMAGES, OVERLAYS, WORST = 6, 6, 8
_THUMB_WIDTH, _CASE_PX = 400, 300
_CASE_MARGIN = 2.2
_QUALITY = 82
_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Picture:
    """An image for the page. uri: ``data:image/jpeg;base64,...``."""

    uri: str
    caption: str


def training_pictures(places: Places) -> list[Picture]:
    """Images of the training set, evenly spread. Empty where the data set was removed."""
    paths = sorted((places.data / "train").glob("*/rgb/*.jpg"))
    return [_thumbnail(path, "") for path in _spread(paths, TRAINING_IMAGES)]


def overlay_pictures(places: Places) -> list[Picture]:
    """Overlays of the evaluation, evenly spread, good and bad alike."""
    paths = sorted((places.overlays / "overlays").glob("*.png"))
    return [_thumbnail(path, f"image {path.stem}") for path in _spread(paths, OVERLAYS)]


def choose_worst(
    records: Sequence[Mapping[str, Any]], count: int = WORST
) -> list[Mapping[str, Any]]:
    """Targets that went wrong: half of them missed (the most visible first), half wrong.

    Wrong ones come with the largest ADD(-S) first. Where one half is short the other fills up;
    where little went wrong, the least accurate poses are among them.
    """
    missed = [record for record in records if not record["found"]]
    missed.sort(key=lambda r: -(r["visible_fraction"] or 0.0))
    found = [record for record in records if record["found"]]
    found.sort(key=lambda r: -(r["add_diameters"] or 0.0))
    missed_count = max(count - count // 2, count - len(found))
    chosen = missed[:missed_count]
    return [*chosen, *found[: count - len(chosen)]]


def worst_pictures(places: Places, records: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """The surroundings of each record's target in the overlay, with the truth's outline in white.

    Raises DataError when the test split is gone.
    """
    images = {image.name: image for image in list_split_inputs(places.data, "test").images}
    library = load_objects(places.library)
    pictures = []
    for record in records:
        image = images[record["image"]]
        # our scenes show each object once
        truth = next(t for t in image.truths if t.object_id == record["object"])
        path = places.overlays / "overlays" / f"{image.name}.png"
        overlay = _read(path if path.exists() else image.path)
        pictures.append(
            Picture(_encode(_draw_case(overlay, image, truth, library)), describe_record(record))
        )
    return pictures


def describe_record(record: Mapping[str, Any]) -> str:
    """What went wrong with a target, in a line."""
    seen = record["visible_fraction"]
    text = f"{record['object']} in {record['image']}"
    text += f", {100 * seen:.0f} % visible" if seen is not None else ""
    if not record["found"]:
        return f"{text}: not found ({record['reason'] or 'no reason given'})"
    return (
        f"{text}: ADD(-S) {100 * record['add_diameters']:.1f} % of the diameter, "
        f"{record['translation_mm']:.1f} mm, {record['rotation_deg']:.1f} deg"
    )


def _draw_case(overlay: Image, image: InputImage, truth: TruePose, library: ObjectLibrary) -> Image:
    frame = image.load_frame()
    drawn = overlay.copy()
    mesh = library[truth.object_id].load_mesh()
    if mesh is not None:
        mask = silhouette(mesh, truth.T_camera_object, frame.K, frame.distortion, drawn.shape[:2])
        outline, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outline, -1, _WHITE, 1, cv2.LINE_AA)
    box = truth.bbox_xyxy_px or (0, 0, drawn.shape[1], drawn.shape[0])
    return _cut_out(drawn, np.asarray(box, float))


def _cut_out(image: Image, box: FloatArray) -> Image:
    """A square around a box, as far as the image goes, grey beyond."""
    side = max(float(np.max(box[2:] - box[:2])) * _CASE_MARGIN, 64.0)
    scale, centre = _CASE_PX / side, (box[:2] + box[2:]) / 2
    M = np.array([[scale, 0, _CASE_PX / 2 - scale * centre[0]],
                  [0, scale, _CASE_PX / 2 - scale * centre[1]]])  # fmt: skip
    return np.asarray(
        cv2.warpAffine(image, M, (_CASE_PX, _CASE_PX), borderValue=(128, 128, 128)), np.uint8
    )


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    if len(paths) <= count:
        return list(paths)
    return [paths[round(i * (len(paths) - 1) / (count - 1))] for i in range(count)]


def _thumbnail(path: Path, caption: str) -> Picture:
    image = _read(path)
    height = round(image.shape[0] * _THUMB_WIDTH / image.shape[1])
    small = cv2.resize(image, (_THUMB_WIDTH, height), interpolation=cv2.INTER_AREA)
    return Picture(_encode(np.asarray(small, np.uint8)), caption)


def _read(path: Path) -> Image:
    image = cv2.imread(str(path))
    if image is None:
        raise DataError(f"Image {path} cannot be read. Delete it and run the same command again.")
    return np.asarray(image, np.uint8)


def _encode(image: Image) -> str:
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise DataError("A picture of the report cannot be encoded as JPEG.")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
