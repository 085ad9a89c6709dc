"""YOLOv10 at run time: letterbox, network, boxes (Wang et al., NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.config import DetectorConfig
from heatnet_ros.engines import Engine
from heatnet_ros.errors import EngineError, ModelError
from heatnet_ros.estimators.tensors import check_tensors
from heatnet_ros.geometry.boxes import box_overlaps
from heatnet_ros.geometry.camera import Letterbox, fit_letterbox
from heatnet_ros.manifest import Manifest
from heatnet_ros.types import Detection, FloatArray, Frame

SIZE_STEP = 32  # the largest stride of YOLO: width and height of its input are multiples of it
COLUMNS = 6  # x0, y0, x1, y1, score, class index
# The network is trained to answer once per object, without NMS. Trained briefly it answers twice
# for one in five: a box of the same class that overlaps a better one so much is the same object.
DOUBLE_IOU = 0.65


class YoloDetector:
    """Finds every instance of every known object.

    Network: ``image`` uint8 1xHxWx3 RGB, letterboxed -> ``detections`` float32 1xMx6, rows of
    x0, y0, x1, y1 (box edges in continuous input pixels), score, class index; any M.
    Raises ModelError when the network's tensors are others.
    """

    def __init__(self, engine: Engine, manifest: Manifest, config: DetectorConfig) -> None:
        check_tensors(
            engine,
            manifest,
            inputs={"image": ("uint8", (1, *manifest.input_hw, 3))},
            outputs={"detections": ("float32", (1, None, COLUMNS))},
        )
        self.engine, self.manifest, self.config = engine, manifest, config

    def detect(self, frame: Frame, wanted: Collection[str] = ()) -> list[Detection]:
        """Detections of one frame, best first, boxes in image pixels; of wanted objects, or all.

        Raises EngineError when the network gives numbers that are not finite.
        """
        letterbox = fit_letterbox(frame.size_hw, self.manifest.input_hw)
        image = letterbox.apply(frame.rgb)[None]
        outputs = self.engine.run({self.manifest.inputs["image"]: image})
        rows = outputs[self.manifest.outputs["detections"]][0]
        config = self.config
        return decode_detections(
            rows, letterbox, frame.size_hw, self.manifest.objects, config.score_threshold,
            config.max_detections, wanted,
        )  # fmt: skip


def decode_detections(
    rows: NDArray[np.float32],
    letterbox: Letterbox,
    size_hw: tuple[int, int],
    objects: Sequence[str],
    score_threshold: float,
    max_detections: int,
    wanted: Collection[str] = (),
) -> list[Detection]:
    """Rows (M, 6) of the network -> detections in an image of ``size_hw``, pixels, best first.

    Boxes are clipped to the image (its left edge is pixel -0.5). What is empty then, found twice,
    or not wanted (empty: all are) is left out and does not count for ``max_detections``. Raises
    EngineError on values that are not finite, ModelError on a class without a name.
    """
    if not np.all(np.isfinite(rows)):
        raise EngineError(
            "The detector gives values that are not finite. Its precision does not suit the "
            "network: set engine.precision to fp32."
        )
    kept = rows[rows[:, 4] >= score_threshold].astype(np.float64)
    kept = kept[np.argsort(-kept[:, 4], kind="stable")]
    classes = np.rint(kept[:, 5]).astype(int)
    if len(classes) and not 0 <= classes.min() <= classes.max() < len(objects):
        raise ModelError(
            f"The detector gives classes {classes.min()} to {classes.max()}, its manifest names "
            f"{len(objects)} objects. Restore both files or export the model again."
        )
    if wanted:
        asked = np.array([name in wanted for name in objects])[classes]
        kept, classes = kept[asked], classes[asked]
    low, high = np.array([-0.5, -0.5]), np.array([size_hw[1] - 0.5, size_hw[0] - 0.5])
    corners = np.clip(letterbox.to_image(kept[:, :4].reshape(-1, 2, 2)), low, high)
    filled = np.all(corners[:, 1] - corners[:, 0] >= 1.0, axis=1)  # at least one pixel
    boxes, classes, scores = corners[filled].reshape(-1, 4), classes[filled], kept[filled, 4]
    single = _find_single(boxes, classes)[:max_detections]
    return [
        Detection(objects[classes[i]], tuple(boxes[i].tolist()), float(min(scores[i], 1.0)))
        for i in single
    ]


def _find_single(boxes: FloatArray, classes: NDArray[np.int_]) -> list[int]:
    """Indices of boxes (M, 4), best first, that no better box of their class overlaps much."""
    double = box_overlaps(boxes, boxes) > DOUBLE_IOU
    double &= classes[:, None] == classes[None]
    chosen: list[int] = []
    for i in range(len(boxes)):
        if not double[i, chosen].any():
            chosen.append(i)
    return chosen


def encode_detections(
    detections: Sequence[Detection], letterbox: Letterbox, objects: Sequence[str], count: int
) -> NDArray[np.float32]:
    """Detections -> rows (count, 6) as the network gives them; the rest are zeros."""
    rows = np.zeros((count, COLUMNS), np.float32)
    for row, detection in zip(rows, detections, strict=False):
        corners = np.array(detection.bbox_xyxy_px).reshape(2, 2)
        padding = [letterbox.pad_left_px, letterbox.pad_top_px]
        row[:4] = ((corners + 0.5) * letterbox.scale_xy + padding).ravel()
        row[4:] = detection.score, list(objects).index(detection.object_id)
    return rows
