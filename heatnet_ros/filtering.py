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
from heatnet_ros.geometry.joint import apply_steps
from heatnet_ros.geometry.symmetry import nearest_equivalent
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
# an acceleration keeps for a frame, but not longer than this
KEEPS_S = 0.1
# over more than this without a pose a way is no velocity: a thing may have been put down there
GAP_S = 0.15
_CALM, _DIMENSIONS = 0, 6
_BELIEF = ("mean", "P", "weight")


class PoseFilter:
    """The filter of one instance: ``update`` takes measured poses.

    T_camera_object: 4x4, what it believes. covariance: 6x6 of it, without the share of the errors
    that stays.
    """

    def __init__(self, T: FloatArray, R: FloatArray, stamp_ns: int) -> None:
        self.stamp_ns = stamp_ns
        self.start(T, R)

    def start(self, T: FloatArray, R: FloatArray) -> None:
        """Believe a measured pose of covariance R (6x6), and nothing of before."""
        self.T_camera_object, self.gated, self.doubt = T, 0, np.zeros((6, 6))
        speeds = [FIRST_SPEED_M_S**2] * 3 + [FIRST_TURN_RAD_S**2] * 3
        P = np.zeros((12, 12))
        P[:6, :6], P[6:, 6:] = R, np.diag(speeds)
        self.belief = _Belief(np.zeros((2, 12)), np.stack([P, P]), np.array([0.5, 0.5]))

    @property
    def covariance(self) -> FloatArray:
        """6x6 of (x, y, z, rx, ry, rz) in m, rad, about the camera's axes.

        Grown while poses are held back: the object may be there.
        """
        return self.belief.mix()[1][:6, :6] + self.doubt

    @property
    def velocity(self) -> FloatArray:
        """(6,): of the object's origin in m/s, and its turn in rad/s about the camera's axes."""
        return self.belief.mix()[0][6:]

    def update(
        self, T: FloatArray, R: FloatArray, C: FloatArray, stamp_ns: int, config: FilterConfig
    ) -> bool:
        """``update_filters`` of this one."""
        return update_filters([self], T[None], R[None], C[None], stamp_ns, config)[0]


@dataclass(frozen=True, eq=False)
class _Belief:
    """What both models believe, of one filter or of n with a leading n.

    mean: (2, 12) offset from the filter's pose, and velocity. P: (2, 12, 12). weight: (2,).
    """

    mean: FloatArray
    P: FloatArray
    weight: FloatArray

    def mix(self) -> tuple[FloatArray, FloatArray]:
        """Mean (12,) and covariance (12, 12) of the mixture."""
        mean = (self.weight[..., None] * self.mean).sum(axis=-2)
        off = self.mean - mean[..., None, :]
        spread = self.P + off[..., :, None] * off[..., None, :]
        return mean, (self.weight[..., None, None] * spread).sum(axis=-3)


def update_filters(
    filters: Sequence[PoseFilter],
    T: FloatArray,
    R: FloatArray,
    C: FloatArray,
    stamp_ns: int,
    config: FilterConfig,
) -> list[bool]:
    """Give n filters measured poses (n, 4, 4) of covariance C, of which R is white (n, 6, 6 both).

    False where the gate held one back. After ``config.max_gated`` of these in a row the next one
    is believed: the filter starts anew there. So it does at once where no steady motion leads over
    a gap. All at once: each alone takes as long as ten.
    """
    belief = _Belief(*(np.stack([getattr(f.belief, k) for f in filters]) for k in _BELIEF))
    T_now = np.stack([f.T_camera_object for f in filters])
    dt_s = np.array([(stamp_ns - f.stamp_ns) / 1e9 for f in filters])
    T_now, belief = _recenter(T_now, _predict(belief, dt_s, config))
    turns = [se3.log_so3(a @ b.T) for a, b in zip(T[:, :3, :3], T_now[:, :3, :3], strict=True)]
    z = np.concatenate([T[:, :3, 3] - T_now[:, :3, 3], np.stack(turns)], axis=1)
    # C: what stays of an error while the view does may change at once with it
    bound = chi_square_bound(config.gate_probability, _DIMENSIONS)
    distances = _distances(belief, z, C)
    held = distances.min(axis=1) > bound
    lost = (dt_s > GAP_S) & (distances[:, _CALM] > bound)
    T_new, updated = _recenter(T_now, _update(belief, z, R))
    for i, f in enumerate(filters):
        f.stamp_ns, f.gated = stamp_ns, f.gated + 1 if held[i] else 0
        # the nearer it is to being believed, the likelier it is true
        f.doubt = f.gated / (config.max_gated + 1) * np.outer(z[i], z[i])
        source, f.T_camera_object = (belief, T_now[i]) if held[i] else (updated, T_new[i])
        f.belief = _Belief(source.mean[i], source.P[i], source.weight[i])
        if f.gated > config.max_gated or lost[i]:
            f.start(T[i], R[i])
            held[i] = False
    return [not h for h in held.tolist()]


def _predict(belief: _Belief, dt_s: FloatArray, config: FilterConfig) -> _Belief:
    """Mix what may have switched between the models, then a step of constant velocity each.

    The acceleration is white, as strong as one that is constant for a frame. Taken as constant
    within the whole step it would tie velocity to position: one pose after a gap would then make
    certain of a velocity that nobody saw.
    """
    stay = (0.5 + 0.5 * np.exp(-2 * dt_s / DWELL_S))[:, None, None]
    switch = np.where(np.eye(2) > 0, stay, 1 - stay)
    shares = switch * belief.weight[:, None]  # to model j from model i
    after = shares.sum(axis=2)
    shares /= after[:, :, None]
    mean = shares @ belief.mean
    off = belief.mean[:, None] - mean[:, :, None]
    P = np.einsum("nji,niab->njab", shares, belief.P, optimize=False)
    P += (shares[..., None, None] * off[..., :, None] * off[..., None, :]).sum(axis=2)
    dt = dt_s[:, None, None]
    mean[:, :, :6] += dt * mean[:, :, 6:]
    _advance(P, dt[..., None])
    sigma = np.repeat([config.acceleration_m_s2, config.turn_acceleration_rad_s2], 3)
    Q = (np.array([CALM, 1.0])[:, None] * sigma) ** 2 * np.minimum(dt, KEEPS_S)  # a second
    i = np.arange(6)
    P[:, :, i, i] += Q * dt**3 / 3
    P[:, :, i, i + 6] += Q * dt**2 / 2
    P[:, :, i + 6, i] += Q * dt**2 / 2
    P[:, :, i + 6, i + 6] += Q * dt
    return _Belief(mean, P, after)


def _advance(P: FloatArray, dt: FloatArray) -> None:
    """F P F^T in place, for F of constant velocity."""
    cross, speed = P[..., :6, 6:], P[..., 6:, 6:]
    P[..., :6, :6] += dt * (cross + cross.swapaxes(-1, -2)) + dt**2 * speed
    P[..., :6, 6:] += dt * speed
    P[..., 6:, :6] = P[..., :6, 6:].swapaxes(-1, -2)


def _distances(belief: _Belief, z: FloatArray, C: FloatArray) -> FloatArray:
    """Squared Mahalanobis distances (n, 2) of innovations to each model."""
    innovation = z[:, None] - belief.mean[:, :, :6]
    S = belief.P[:, :, :6, :6] + C[:, None]
    return _squared(innovation, S)


def _squared(x: FloatArray, S: FloatArray) -> FloatArray:
    """x^T S^-1 x of (..., 6) and (..., 6, 6)."""
    return np.asarray((x * np.linalg.solve(S, x[..., None])[..., 0]).sum(axis=-1))


def _update(belief: _Belief, z: FloatArray, R: FloatArray) -> _Belief:
    """Kalman's update (Joseph's form) of each model, and how likely each then is."""
    innovation, R = z[:, None] - belief.mean[:, :, :6], R[:, None]
    S = belief.P[:, :, :6, :6] + R
    gain = np.linalg.solve(S, belief.P[:, :, :6]).swapaxes(-1, -2)
    keep = np.broadcast_to(np.eye(12), belief.P.shape).copy()
    keep[..., :6] -= gain
    P = keep @ belief.P @ keep.swapaxes(-1, -2) + gain @ R @ gain.swapaxes(-1, -2)
    # in logarithms: far from both models' beliefs both likelihoods vanish
    score = np.log(belief.weight) - 0.5 * (_squared(innovation, S) + np.linalg.slogdet(S)[1])
    weight = np.exp(score - score.max(axis=1, keepdims=True))
    weight = np.maximum(weight / weight.sum(axis=1, keepdims=True), 1e-6)
    mean = belief.mean + (gain @ innovation[..., None])[..., 0]
    weight /= weight.sum(axis=1, keepdims=True)
    return _Belief(mean, (P + P.swapaxes(-1, -2)) / 2, weight)


def _recenter(T: FloatArray, belief: _Belief) -> tuple[FloatArray, _Belief]:
    """Poses (n, 4, 4) moved to the believed ones, and the offsets back to zero mean.

    The turn of the axes of P by the small step is left out: it is of second order.
    """
    step = belief.mix()[0][:, :6]
    mean = belief.mean.copy()
    mean[:, :, :6] -= step[:, None]
    return apply_steps(T, step), replace(belief, mean=mean)


class FilterBank:
    """The filters of all instances; ids are those of ``InstanceMemory``."""

    def __init__(self, library: ObjectLibrary) -> None:
        self._library = library
        self._filters: dict[tuple[str, int], PoseFilter] = {}

    def reset(self) -> None:
        """Forget all instances."""
        self._filters.clear()

    def forget_others(self, objects: Sequence[str]) -> None:
        """Forget the instances of all objects but these: their ids will be given anew."""
        self._filters = {key: old for key, old in self._filters.items() if key[0] in objects}

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
            if 0 < stamp_ns - old.stamp_ns <= MEMORY_NS  # no time: nothing to follow it by
        }
        poses = [self._on_branch(pose) for pose in poses]
        if not poses:
            return ()
        C = np.stack([_error_covariance(pose, config) for pose in poses])
        R = config.noise_share * C + np.diag([FLOOR_M**2] * 3 + [FLOOR_RAD**2] * 3)
        keys = [(pose.object_id, pose.instance) for pose in poses]
        old = [i for i, key in enumerate(keys) if key in self._filters]
        for i, key in enumerate(keys):
            if i not in old:
                self._filters[key] = PoseFilter(poses[i].T_camera_object, R[i], stamp_ns)
        filters = [self._filters[key] for key in keys]
        if old:
            T = np.stack([poses[i].T_camera_object for i in old])
            update_filters([filters[i] for i in old], T, R[old], C[old], stamp_ns, config)
        return tuple(
            _tell(pose, f, (1 - config.noise_share) * c)
            for pose, f, c in zip(poses, filters, C, strict=True)
        )

    def _on_branch(self, pose: PoseEstimate) -> PoseEstimate:
        """The equivalent pose nearest to the last filtered one.

        The last one and not the expected one: a turn about an axis of symmetry is not seen, and
        one that is expected would go on by itself.
        """
        known = self._filters.get((pose.object_id, pose.instance))
        symmetries = self._library[pose.object_id].symmetries
        if known is None or not symmetries.any:
            return pose
        T = nearest_equivalent(pose.T_camera_object, known.T_camera_object, symmetries)
        return with_transform(pose, T, pose.instance)


def _tell(pose: PoseEstimate, known: PoseFilter, stays: FloatArray) -> PoseEstimate:
    """The filtered pose; stays: 6x6, the covariance that no averaging takes away."""
    covariance = None if pose.covariance is None else known.covariance + stays
    T = known.T_camera_object
    return replace(pose, T_camera_object=T, covariance=covariance)


def chi_square_bound(probability: float, freedom: int) -> float:
    """Quantile of the chi-square distribution (Wilson and Hilferty 1931, to about 1 %)."""
    part = 2 / (9 * freedom)
    normal = NormalDist().inv_cdf(probability)
    return float(freedom * max(1 - part + normal * part**0.5, 0.0) ** 3)


def _error_covariance(pose: PoseEstimate, config: FilterConfig) -> FloatArray:
    if pose.covariance is not None:
        return np.asarray(config.covariance_scale * pose.covariance)
    away_m = float(np.linalg.norm(pose.T_camera_object[:3, 3]))
    return np.diag([(UNKNOWN_PART * away_m) ** 2] * 3 + [UNKNOWN_RAD**2] * 3)
