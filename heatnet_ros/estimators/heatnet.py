"""HeatNet at run time: crops, keypoint heatmaps, PnP (paper sections 3.4 to 3.6).

The network is ``training/heatnet.py``; here stand its contract, encode and decode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.config import EstimatorConfig
from heatnet_ros.engines import Engine
from heatnet_ros.errors import EngineError, ModelError
from heatnet_ros.estimators.heatnet_input import encode_depth
from heatnet_ros.estimators.tensors import check_tensors
from heatnet_ros.geometry.camera import Crop, crop_around_box, scale_points, undistort_points
from heatnet_ros.geometry.depth_solve import PoseQuery, solve_pnp_depth
from heatnet_ros.geometry.joint import DepthImage
from heatnet_ros.geometry.pnp import PnpSolution, solve_pnp
from heatnet_ros.geometry.symmetry import canonicalize
from heatnet_ros.manifest import Manifest
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.types import (
    DepthF32,
    Detection,
    FloatArray,
    Frame,
    Keypoints,
    PoseEstimate,
    Reason,
    Rejection,
)

MIN_VALID_DEPTH = 0.05  # of the crop's pixels
FIT_RADIUS_PX = 2  # heatmap pixels around the maximum that the sub-pixel step looks at
# A network's keypoint errors in one crop go together: 32 say as much as 4 independent ones. By so
# much the squared error of a pose exceeds what the solve's covariance says, from colour alone and
# with depth. Measured on held-out renders, where the median error is then 0.8 to 1.3 times it.
PNP_CORRELATION, DEPTH_CORRELATION = 8.0, 3.0
SMALLEST_VALUE = 1e-6  # where the logarithm is cut off
_Heatmaps = NDArray[np.float32]


class HeatNetEstimator:
    """Poses from keypoint heatmaps, all objects of a frame in one network call.

    Network: ``rgb`` uint8 NxSxSx3, ``object_index`` int64 N and, for RGB-D models, ``depth``
    float32 Nx2xSxS (see ``encode_depth``) -> ``heatmaps`` float32 NxKxhxw, about 0 to 1, and, if
    it learned it, ``confidence`` float32 NxK, 0 to 1: how far each keypoint is to be trusted.
    Without, the height of the heatmap's peak stands for that.
    Raises ModelError when the network's tensors are others.
    """

    def __init__(
        self, engine: Engine, manifest: Manifest, config: EstimatorConfig, library: ObjectLibrary
    ) -> None:
        size = manifest.input_hw[0]
        if manifest.input_hw != (size, size) or manifest.stride < 1 or size % manifest.stride:
            raise ModelError(
                f"Model '{manifest.name}': expected a square input and a stride that divides it, "
                f"got {manifest.input_hw} and {manifest.stride}. Export the model again."
            )
        self.uses_depth = "depth" in manifest.inputs
        inputs: dict[str, tuple[str, tuple[int | None, ...]]] = {
            "rgb": ("uint8", (None, size, size, 3)),
            "object_index": ("int64", (None,)),
        }
        if self.uses_depth:
            inputs["depth"] = ("float32", (None, 2, size, size))
        side = size // manifest.stride
        self._output_shape = (manifest.keypoints, side, side)
        outputs: dict[str, tuple[str, tuple[int | None, ...]]] = {
            "heatmaps": ("float32", (None, *self._output_shape))
        }
        if "confidence" in manifest.outputs:
            outputs["confidence"] = ("float32", (None, manifest.keypoints))
        check_tensors(engine, manifest, inputs, outputs)
        fixed = [str(spec) for spec in engine.inputs if spec.shape[0] is not None]
        if fixed:
            raise ModelError(
                f"Model '{manifest.name}': the batch dimension of {', '.join(fixed)} is fixed, "
                "expected an open one. Export the model with a dynamic batch."
            )
        self.engine, self.manifest, self.config, self.library = engine, manifest, config, library

    def estimate(
        self, frame: Frame, detections: Sequence[Detection]
    ) -> list[PoseEstimate | Rejection]:
        """One pose or rejection per detection, in their order.

        Raises ModelError for an object that the network was not trained for, EngineError when it
        gives numbers that are not finite.
        """
        size, margin = self.manifest.input_hw[0], self.manifest.crop_margin
        crops = [crop_around_box(d.bbox_xyxy_px, size, margin) for d in detections]
        depths = [self._crop_depth(frame, crop) for crop in crops]
        ready = [i for i, depth in enumerate(depths) if depth is not None or not self.uses_depth]
        # the ready ones are replaced below
        results: list[PoseEstimate | Rejection] = [_no_depth(frame, d) for d in detections]
        if not ready:
            return results
        items = [(detections[i], crops[i], depths[i]) for i in ready]
        heatmaps, learned = self._run(frame, items)
        points, confidence = decode_heatmaps(heatmaps, self.manifest.stride, self.config.decode)
        if learned is not None:  # a peak outside the crop stays unusable
            confidence = np.where(confidence > 0, np.clip(learned, 0.0, 1.0), 0.0)
        found = [detections[i] for i in ready]
        solved = self._solve(frame, found, [crops[i] for i in ready], points, confidence)
        for i, result in zip(ready, solved, strict=True):
            results[i] = result
        return results

    def _crop_depth(self, frame: Frame, crop: Crop) -> DepthF32 | None:
        """Depth of a crop, SxS metres, or None where too little of it is valid."""
        if not self.uses_depth or frame.depth_m is None:
            return None
        depth = crop.warp(frame.depth_m, nearest=True).astype(np.float32, copy=False)
        valid = np.isfinite(depth) & (depth > 0)
        return depth if valid.mean() >= MIN_VALID_DEPTH else None

    def _run(
        self, frame: Frame, items: Sequence[tuple[Detection, Crop, DepthF32 | None]]
    ) -> tuple[_Heatmaps, NDArray[np.float32] | None]:
        """Heatmaps of the items and, of a network that gives it, the keypoints' confidence."""
        names, objects = self.manifest.inputs, self.manifest.objects
        unknown = {detection.object_id for detection, _, _ in items} - set(objects)
        if unknown:
            raise ModelError(
                f"Model '{self.manifest.name}' was trained for {', '.join(objects)}, not for "
                f"{', '.join(sorted(unknown))}. Use a detector and an estimator of the same set."
            )
        index = [objects.index(detection.object_id) for detection, _, _ in items]
        tensors: dict[str, NDArray[Any]] = {
            names["rgb"]: np.stack([crop.warp(frame.rgb) for _, crop, _ in items]),
            names["object_index"]: np.array(index, np.int64),
        }
        if self.uses_depth:
            tensors[names["depth"]] = np.stack(
                [
                    encode_depth(depth, self.library[detection.object_id].diameter_m)
                    for detection, _, depth in items
                    if depth is not None
                ]
            )
        outputs, answer = self.manifest.outputs, self.engine.run(tensors)
        wanted: dict[str, tuple[int, ...]] = {"heatmaps": (len(items), *self._output_shape)}
        if "confidence" in outputs:
            wanted["confidence"] = (len(items), self.manifest.keypoints)
        for role, shape in wanted.items():
            got = answer[outputs[role]]
            if got.shape != shape:
                raise ModelError(
                    f"Model '{self.manifest.name}' gives {role} {got.shape}, expected "
                    f"{shape}. Export the model again."
                )
            if not np.isfinite(got.sum()):  # one number is not finite: neither is their sum
                raise EngineError(
                    f"Model '{self.manifest.name}' gives {role} that are not finite. The precision "
                    "does not suit the network: set engine.precision to fp32."
                )
        learned = answer[outputs["confidence"]] if "confidence" in outputs else None
        return answer[outputs["heatmaps"]], learned

    def _solve(
        self,
        frame: Frame,
        detections: Sequence[Detection],
        crops: Sequence[Crop],
        points_crop_px: FloatArray,
        confidence: FloatArray,
    ) -> list[PoseEstimate | Rejection]:
        """points_crop_px (N, K, 2), confidence (N, K) of N crops -> N poses or rejections."""
        points_px = np.stack(
            [crop.to_image(p) for crop, p in zip(crops, points_crop_px, strict=True)]
        )
        queries = self._queries(frame, detections, crops, points_px, confidence)
        if self.config.use_depth and frame.depth_m is not None:
            solutions = solve_pnp_depth(
                queries, DepthImage(frame.depth_m, frame.K, frame.distortion)
            )
        else:
            solutions = [
                solve_pnp(q.points_object_m, q.points_px, frame.K, q.confidence, q.threshold_px)
                for q in queries
            ]
        return [
            self._conclude(detection, crop, points, c, solution)
            for detection, crop, points, c, solution in zip(
                detections, crops, points_px, confidence, solutions, strict=True
            )
        ]

    def _queries(
        self,
        frame: Frame,
        detections: Sequence[Detection],
        crops: Sequence[Crop],
        points_px: FloatArray,
        confidence: FloatArray,
    ) -> list[PoseQuery]:
        ideal_px = undistort_points(points_px.reshape(-1, 2), frame.K, frame.distortion)
        ideal_px = ideal_px.reshape(points_px.shape)
        weights = np.where(confidence >= self.config.min_confidence, confidence, 0.0)
        queries = []
        for i, (detection, crop) in enumerate(zip(detections, crops, strict=True)):
            model, expected = self.library[detection.object_id], detection.T_camera_expected
            if expected is not None:  # the network answers for the canonical pose
                expected = canonicalize(expected, model.symmetries)
            threshold_px = self.config.ransac_threshold_px / crop.scale
            queries.append(
                PoseQuery(
                    model.keypoints_m, ideal_px[i], weights[i], threshold_px, model.surface,
                    model.diameter_m, expected,
                )
            )  # fmt: skip
        return queries

    def _conclude(
        self,
        detection: Detection,
        crop: Crop,
        points_px: FloatArray,
        confidence: FloatArray,
        solution: PnpSolution | None,
    ) -> PoseEstimate | Rejection:
        used = confidence >= self.config.min_confidence
        if solution is None:
            detail = f"{used.sum()} of {len(used)} keypoints are confident, they agree on no pose"
            return Rejection(detection.object_id, Reason.TOO_FEW_INLIERS, detail, detection)
        inliers = solution.inliers
        correlation = DEPTH_CORRELATION if solution.with_depth else PNP_CORRELATION
        inlier_ratio = float(inliers.sum() / used.sum())
        return PoseEstimate(
            object_id=detection.object_id,
            T_camera_object=solution.T_camera_object,
            score=float(np.clip(confidence[inliers].mean() * inlier_ratio, 0.0, 1.0)),
            inlier_ratio=inlier_ratio,
            reprojection_px=solution.reprojection_px * crop.scale,
            crop_scale=crop.scale,
            source=self.manifest.name,
            covariance=solution.covariance * correlation,
            keypoints=Keypoints(points_px, np.where(inliers, confidence, 0.0)),
            detection=detection,
        )


def _no_depth(frame: Frame, detection: Detection) -> Rejection:
    if frame.depth_m is None:
        detail = "the frame has no depth image, the model needs one"
    else:
        detail = f"less than {MIN_VALID_DEPTH:.0%} of the crop's depth pixels are valid"
    return Rejection(detection.object_id, Reason.NO_DEPTH, detail, detection)


def encode_heatmaps(
    points_px: FloatArray, size_hw: tuple[int, int], stride: int, sigma: float
) -> _Heatmaps:
    """Keypoints (K, 2) in crop pixels -> Gaussians (K, h, w) that peak at 1 (paper section 3.5).

    size_hw: of the heatmaps. sigma: in heatmap pixels.
    """
    x, y = scale_points(points_px, 1.0 / stride).T
    columns = np.exp(-((np.arange(size_hw[1]) - x[:, None]) ** 2) / (2 * sigma**2))
    rows = np.exp(-((np.arange(size_hw[0]) - y[:, None]) ** 2) / (2 * sigma**2))
    return np.asarray(rows[:, :, None] * columns[:, None, :], np.float32)


def decode_heatmaps(
    heatmaps: _Heatmaps, stride: int, method: str = "dark"
) -> tuple[FloatArray, FloatArray]:
    """Heatmaps (N, K, h, w) -> keypoints (N, K, 2) in crop pixels, confidence (N, K) in 0..1.

    ``argmax`` takes the highest pixel. ``dark`` adds the Taylor step on the log heatmap (Zhang et
    al., CVPR 2020). The derivatives come from a weighted quadratic fit to 5x5 pixels, not from
    differences on a blurred map: a blur displaces peaks near the border, where the fit stays
    exact, and under noise the fit is 2 to 4 times better than plain differences.
    Confidence is the highest value; 0 where the peak lies outside the crop.
    """
    n, k, h, w = heatmaps.shape
    flat = heatmaps.reshape(n * k, h * w)
    top = flat.argmax(axis=1)
    confidence = np.clip(flat[np.arange(n * k), top], 0.0, 1.0).astype(np.float64)
    peak = np.stack([top % w, top // w], axis=1)
    points = peak.astype(np.float64)
    if method == "dark":
        step = _taylor_step(heatmaps.reshape(n * k, h, w), peak)
        fitted = peak + step
        last = np.array([w - 1, h - 1])
        before, behind = (peak == 0) & (fitted < -1.0), (peak == last) & (fitted > last + 1.0)
        confidence[np.any(before | behind, axis=1)] = 0.0  # only the flank of a peak is seen
        # a maximum cannot lie further from its highest pixel: the map is no single peak
        points = np.where(np.all(np.abs(step) <= 1.0, axis=1)[:, None], fitted, points)
    points = scale_points(points, float(stride))
    return points.reshape(n, k, 2), confidence.reshape(n, k)


def _taylor_step(maps: _Heatmaps, peak: NDArray[np.int64]) -> FloatArray:
    """-H^-1 g of the log heatmap at the highest pixels: maps (M, h, w), peak (M, 2) -> (M, 2).

    Zero where the log heatmap has no maximum. The window is moved inside at the border: of a
    Gaussian the log is one quadratic everywhere, so the step stays exact.
    """
    r = FIT_RADIUS_PX
    size_wh = np.array([maps.shape[2], maps.shape[1]])
    center = np.clip(peak, r, size_wh - 1 - r)
    v, u = (a.ravel() for a in np.mgrid[-r : r + 1, -r : r + 1])
    rows, columns = center[:, 1, None] + v, center[:, 0, None] + u
    values = maps[np.arange(len(maps))[:, None], rows, columns].astype(np.float64)
    values = np.maximum(values, SMALLEST_VALUE)
    # noise of a value v becomes noise / v in its logarithm: weights v^2
    weights = (values / values.max(axis=1, keepdims=True)) ** 2
    basis = np.stack([np.ones_like(u), u, v, u * u / 2, u * v, v * v / 2], axis=1).astype(float)
    products = basis[:, :, None] * basis[:, None, :]
    normal = (weights @ products.reshape(-1, 36)).reshape(-1, 6, 6)
    normal += 1e-12 * np.eye(6)
    fit = np.linalg.solve(normal, ((weights * np.log(values)) @ basis)[..., None])[..., 0]
    gx, gy, hxx, hxy, hyy = fit[:, 1:].T
    determinant = hxx * hyy - hxy**2
    is_maximum = (determinant > 1e-9) & (hxx < 0)
    safe = np.where(is_maximum, determinant, 1.0)
    step = -np.stack([hyy * gx - hxy * gy, hxx * gy - hxy * gx], axis=1) / safe[:, None]
    return np.asarray(np.where(is_maximum[:, None], step + center - peak, 0.0))
