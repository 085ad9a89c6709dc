"""Poses made steady over time: a filter on SE(3) for each instance, and a covariance that holds.

State and steps as in ``geometry/pnp.py``: an error (dt, w) from the left, in the camera's axes,
and the velocities of both. Two constant-velocity models run side by side (interacting multiple
models, Blom and Bar-Shalom 1988): a calm one averages while nothing accelerates, an agile one goes
along when something does, and what was measured decides between them in each frame.

The errors of one network are not white. Most of an error is the same in the next frame, because
the next view is nearly the same; no averaging takes it away. So a measurement counts with the
share of its covariance that is new in each frame, and what is told is the filter's own covariance
plus the share that stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from heatnet_ros.config import FilterConfig
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.pnp import apply_step
from heatnet_ros.geometry.symmetry import Symmetries, nearest_equivalent
from heatnet_ros.instances import MEMORY_NS, with_transform
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.types import FloatArray, PoseEstimate

# accelerations of the calm model, as a part of the agile one's
CALM = 0.0005
# how long an object stays calm or agile, on average
DWELL_S = 2.0
# an object that appears may move like this: standard deviations, per second
FIRST_SPEED_M_S, FIRST_TURN_RAD_S = 0.2, 0.8
# no measurement is better, whatever its covariance says
FLOOR_M, FLOOR_RAD = 5e-5, 2e-4
# where the estimator knows no covariance: part of the distance, and radians
UNKNOWN_PART, UNKNOWN_RAD = 0.01, 0.09
_DIMENSIONS = 6


@dataclass(frozen=True, eq=False)
class _Model:
    """One model's belief. mean: (12,) offset from the filter's pose, and velocity. P: 12x12."""

    mean: FloatArray
    P: FloatArray
    weight: float


class PoseFilter:
    """The filter of one instance. ``update`` takes a measured pose, ``pose`` is what it believes.

    T_camera_object: 4x4. covariance: 6x6 of it, without the share of the errors that stays.
    """

    def __init__(self, T: FloatArray, R: FloatArray, stamp_ns: int) -> None:
        self.stamp_ns, self.gated = stamp_ns, 0
        self._start(T, R)

    def _start(self, T: FloatArray, R: FloatArray) -> None:
        self.T_camera_object, self.gated = T, 0
        speeds = [FIRST_SPEED_M_S**2] * 3 + [FIRST_TURN_RAD_S**2] * 3
        P = np.zeros((12, 12))
        P[:6, :6], P[6:, 6:] = R, np.diag(speeds)
        self._models = [_Model(np.zeros(12), P, 0.5) for _ in range(2)]

    @property
    def covariance(self) -> FloatArray:
        """6x6 of (x, y, z, rx, ry, rz) in m, rad, about the camera's axes."""
        return _mix(self._models)[1][:6, :6]

    @property
    def velocity(self) -> FloatArray:
        """(6,): of the object's origin in m/s, and its turn in rad/s about the camera's axes."""
        return _mix(self._models)[0][6:]

    def update(
        self, T: FloatArray, R: FloatArray, C: FloatArray, stamp_ns: int, config: FilterConfig
    ) -> bool:
        """Take a measured pose of covariance C, of which R is white (6x6 both).

        False where the gate held it back. After ``config.max_gated`` of these in a row the next
        one is believed: the filter starts anew there.
        """
        self._predict((stamp_ns - self.stamp_ns) / 1e9, config)
        self.stamp_ns = stamp_ns
        T_now = self.T_camera_object
        z = np.concatenate(
            [T[:3, 3] - T_now[:3, 3], se3.log_so3(T[:3, :3] @ T_now[:3, :3].T)],
        )
        # C: what stays of an error while the view does may change at once with it
        if self._distance(z, C) > chi_square_bound(config.gate_probability, _DIMENSIONS):
            self.gated += 1
            if self.gated > config.max_gated:
                self._start(T, R)
                return True
            return False
        self.gated = 0
        updated = [_update(model, z, R) for model in self._models]
        # in logarithms: far from both models' beliefs both likelihoods vanish
        scores = np.array([np.log(m.weight) + score for m, score in updated])
        weights = np.exp(scores - scores.max())
        weights = np.maximum(weights / weights.sum(), 1e-6)
        self._models = [
            replace(m, weight=float(w))
            for (m, _), w in zip(updated, weights / weights.sum(), strict=True)
        ]
        self._recenter()
        return True

    def _predict(self, dt_s: float, config: FilterConfig) -> None:
        stay = 0.5 + 0.5 * np.exp(-2 * dt_s / DWELL_S)
        switch = np.array([[stay, 1 - stay], [1 - stay, stay]])
        before = np.array([model.weight for model in self._models])
        after = switch @ before
        mixed = []
        for j, scale in enumerate((CALM, 1.0)):
            parts = switch[j] * before / after[j]
            mean, P = _mix(
                [replace(m, weight=float(p)) for m, p in zip(self._models, parts, strict=True)]
            )
            mixed.append(_advance(mean, P, float(after[j]), dt_s, scale, config))
        self._models = mixed
        self._recenter()

    def _distance(self, z: FloatArray, C: FloatArray) -> float:
        """Squared Mahalanobis distance of an innovation to the model that is nearest to it."""
        distances = []
        for model in self._models:
            innovation = z - model.mean[:6]
            S = model.P[:6, :6] + C
            distances.append(float(innovation @ np.linalg.solve(S, innovation)))
        return min(distances)

    def _recenter(self) -> None:
        """Move the pose to the believed one and the offsets back to zero mean.

        The turn of the axes of P by the small step is left out: it is of second order.
        """
        step = _mix(self._models)[0][:6]
        self.T_camera_object = apply_step(self.T_camera_object, step)
        shift = np.concatenate([step, np.zeros(6)])
        self._models = [replace(model, mean=model.mean - shift) for model in self._models]


class FilterBank:
    """The filters of all instances; ids are those of ``InstanceMemory``."""

    def __init__(self, library: ObjectLibrary) -> None:
        self._library = library
        self._filters: dict[tuple[str, int], PoseFilter] = {}

    def reset(self) -> None:
        """Forget all instances."""
        self._filters.clear()

    def update(
        self, poses: Sequence[PoseEstimate], stamp_ns: int, config: FilterConfig
    ) -> tuple[PoseEstimate, ...]:
        """The filtered poses of one frame, in the order of the measured ones.

        A pose that the gate holds back is told where it was expected. Without a covariance of the
        measured pose the filtered one has none.
        """
        self._filters = {
            key: old
            for key, old in self._filters.items()
            if 0 <= stamp_ns - old.stamp_ns <= MEMORY_NS
        }
        return tuple(self._filter(pose, stamp_ns, config) for pose in poses)

    def _filter(self, pose: PoseEstimate, stamp_ns: int, config: FilterConfig) -> PoseEstimate:
        key = pose.object_id, pose.instance
        known = self._filters.get(key)
        if known is not None:
            symmetries = self._library[pose.object_id].symmetries
            pose = _on_branch(pose, known.T_camera_object, symmetries)
        C = _error_covariance(pose, config)
        R = config.noise_share * C + np.diag([FLOOR_M**2] * 3 + [FLOOR_RAD**2] * 3)
        if known is None:
            known = self._filters[key] = PoseFilter(pose.T_camera_object, R, stamp_ns)
        else:
            known.update(pose.T_camera_object, R, C, stamp_ns, config)
        told = None
        if pose.covariance is not None:
            told = known.covariance + (1 - config.noise_share) * C
        return replace(pose, T_camera_object=known.T_camera_object, covariance=told)


def chi_square_bound(probability: float, freedom: int) -> float:
    """Quantile of the chi-square distribution (Wilson and Hilferty 1931, to about 1 %)."""
    part = 2 / (9 * freedom)
    normal = NormalDist().inv_cdf(probability)
    return float(freedom * max(1 - part + normal * part**0.5, 0.0) ** 3)


def _on_branch(pose: PoseEstimate, T_last: FloatArray, symmetries: Symmetries) -> PoseEstimate:
    """The equivalent pose nearest to the last filtered one.

    The last one and not the expected one: a turn about an axis of symmetry is not seen, and one
    that is expected would go on by itself.
    """
    if not symmetries.any:
        return pose
    T = nearest_equivalent(pose.T_camera_object, T_last, symmetries)
    return with_transform(pose, T, pose.instance)


def _error_covariance(pose: PoseEstimate, config: FilterConfig) -> FloatArray:
    if pose.covariance is not None:
        return np.asarray(config.covariance_scale * pose.covariance)
    away_m = float(np.linalg.norm(pose.T_camera_object[:3, 3]))
    return np.diag([(UNKNOWN_PART * away_m) ** 2] * 3 + [UNKNOWN_RAD**2] * 3)


def _mix(models: Sequence[_Model]) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of a mixture of normal distributions."""
    mean = sum((m.weight * m.mean for m in models), np.zeros(12))
    P = np.zeros((12, 12))
    for m in models:
        off = m.mean - mean
        P += m.weight * (m.P + np.outer(off, off))
    return mean, P


def _advance(
    mean: FloatArray, P: FloatArray, weight: float, dt_s: float, scale: float, config: FilterConfig
) -> _Model:
    """One step of constant velocity; the acceleration is constant within it and white beyond."""
    F = np.eye(12)
    F[:6, 6:] = dt_s * np.eye(6)
    sigma = scale * np.repeat([config.acceleration_m_s2, config.turn_acceleration_rad_s2], 3)
    G = np.vstack([np.diag(sigma) * dt_s**2 / 2, np.diag(sigma) * dt_s])
    return _Model(F @ mean, F @ P @ F.T + G @ G.T, weight)


def _update(model: _Model, z: FloatArray, R: FloatArray) -> tuple[_Model, float]:
    """Kalman's update (Joseph's form), and the logarithm of the measurement's likelihood."""
    innovation = z - model.mean[:6]
    S = model.P[:6, :6] + R
    gain = np.linalg.solve(S, model.P[:6]).T
    keep = np.eye(12)
    keep[:, :6] -= gain
    P = keep @ model.P @ keep.T + gain @ R @ gain.T
    score = -0.5 * float(innovation @ np.linalg.solve(S, innovation) + np.linalg.slogdet(S)[1])
    return replace(model, mean=model.mean + gain @ innovation, P=(P + P.T) / 2), score
