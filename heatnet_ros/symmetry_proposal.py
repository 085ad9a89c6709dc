"""Symmetries proposed from a mesh's geometry; whether its colours agree is for the user to judge.

Candidate axes are tried on the surface: a turn is a symmetry when it maps the surface onto itself
within a tolerance. A label on a box breaks no geometric symmetry, so the colours after the turn,
the texture's where there is one, are compared and reported beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from heatnet_ros.geometry import se3
from heatnet_ros.geometry.symmetry import rotation_about
from heatnet_ros.keypoint_sampling import PointIndex
from heatnet_ros.mesh import Mesh, diameter, sample_surface
from heatnet_ros.surface_colors import SurfaceColors
from heatnet_ros.types import FloatArray

MAX_FOLD = 6
# in per cent of the diameter: 95 of 100 surface points must come this near the surface again
TOLERANCE_PERCENT = 2.5
# and none may be farther off than this many times as much: the handle of a mug is few points
_OUTLIER_FACTOR = 3.2
SURFACE_POINTS, PROBES, VERTEX_PROBES = 30000, 1500, 1000
# turned colours that differ more than this on average (of 255) look different
COLOR_TOLERANCE = 30.0
# and so do those that stand out on more than this share of the surface: scans of LINEMOD's eggbox
# and glue, which BOP calls symmetric, do on 0.6 and 2.5 %, a label on 3 % of a box on 5.5 %
COLOR_SHARE_TOLERANCE = 0.04
_CONTINUOUS_STEPS = 12
_SCAN_STEPS = 24
_SNAP_DEG = 6.0
_FOLDS = tuple(range(2, MAX_FOLD + 1))
# the object's own axis and origin may fit this much worse (per cent of the diameter)
_SNAP_PERCENT = 0.5
# a candidate this many times outside the tolerance is not worth refining
_HOPEFUL = 3.0
_REFINE_STEPS = 12


@dataclass(frozen=True, eq=False)
class SymmetryProposal:
    """A turn about ``axis`` (unit, 3) through ``point_m`` (3) that keeps the surface.

    fold: 2..6, or None for any angle. mean_percent, p95_percent, max_percent: distance of turned
    surface points to the surface, in per cent of the diameter. color_difference: mean absolute
    difference of the colours after the turn (0..255); color_share: share of the surface (0..1)
    whose colour after the turn is nowhere near.
    """

    axis: FloatArray
    point_m: FloatArray
    fold: int | None
    mean_percent: float
    p95_percent: float
    max_percent: float
    color_difference: float = 0.0
    color_share: float = 0.0

    @property
    def colors_agree(self) -> bool:
        """False where a label or print tells the turned object from the original."""
        return (
            self.color_difference <= COLOR_TOLERANCE and self.color_share <= COLOR_SHARE_TOLERANCE
        )

    def to_entry(self) -> dict[str, Any]:
        """As the object library stores it."""
        entry: dict[str, Any] = {"axis": [_tidy(x) for x in self.axis]}
        entry |= {"continuous": True} if self.fold is None else {"fold": self.fold}
        if np.any(np.abs(self.point_m) > 1e-5):
            entry["point_m"] = [_tidy(x) for x in self.point_m]
        return entry

    def to_flag(self, name: str) -> str:
        """As it is typed after ``--symmetry``."""
        entry = self.to_entry()
        kind = "continuous" if self.fold is None else f"fold={self.fold}"
        text = f"{name}:axis={','.join(f'{x:g}' for x in entry['axis'])}:{kind}"
        if "point_m" in entry:
            text += f":point_m={','.join(f'{x:g}' for x in entry['point_m'])}"
        return text

    def describe(self) -> str:
        """One line: what it is, how well the surface and the colours agree."""
        kind = "any angle" if self.fold is None else f"{self.fold}-fold"
        colors = "agree" if self.colors_agree else "DIFFER: a label?"
        return (
            f"{kind} about ({', '.join(f'{_tidy(x):g}' for x in self.axis)}): surface within "
            f"{self.mean_percent:.2f} % of the diameter on average, {self.p95_percent:.2f} % for "
            f"95 of 100 points, {self.max_percent:.2f} % at most; colours {colors} "
            f"(difference {self.color_difference:.0f} of 255 on average, "
            f"{100 * self.color_share:.1f} % of the surface look different)"
        )


def propose_symmetries(
    mesh: Mesh, tolerance_percent: float = TOLERANCE_PERCENT, seed: int = 0
) -> list[SymmetryProposal]:
    """Find the rotations that map the surface onto itself, the strongest first.

    They are generators: together (the object library multiplies them) they make the group, so a
    brick gets two half turns and not three. Deterministic from the seed. Mirror images are no
    symmetries of a pose.
    """
    surface = _Surface(mesh, tolerance_percent, seed)
    found: list[SymmetryProposal] = []
    for axis in _candidate_axes(mesh, surface.points):
        if not any(_same_line(axis, proposal.axis) for proposal in found):
            # beside an axis of any angle only half turns can add something
            whole = any(proposal.fold is None for proposal in found)
            found += surface.test_axis(axis, (2,) if whole else _FOLDS)
    found = _strongest(found)
    if found:
        # about the main axis of a prism or cylinder lie half turns that nothing else points at
        for axis in _perpendicular_axes(found[0]):
            across = any(_is_across(proposal.axis, found[0].axis) for proposal in found[1:])
            if across:
                break  # the others follow from it and the main axis
            found += surface.test_axis(axis, (2,))
    looks = SurfaceColors(mesh, seed)
    found = [_with_colors(proposal, looks) for proposal in found]
    return _generators(_strongest(found), surface.diameter_m)


class _Surface:
    """Points all over a mesh, and how far a turned copy lies from it."""

    def __init__(self, mesh: Mesh, tolerance_percent: float, seed: int) -> None:
        self.mesh, self.tolerance = mesh, tolerance_percent
        self.points, self.normals = sample_surface(mesh, SURFACE_POINTS, seed)
        self.diameter_m = diameter(mesh.vertices_m)
        self.probes = self.points[:PROBES]
        # thin parts have few surface points but always vertices
        pick = np.linspace(0, len(mesh.vertices_m) - 1, VERTEX_PROBES).astype(np.int64)
        self.corners = mesh.vertices_m[np.unique(pick)]
        self.centre = self.points.mean(axis=0)
        self.index = PointIndex(self.points)

    def distances_m(self, T: FloatArray, probes: FloatArray) -> FloatArray:
        """Distance of the probes (Px3), moved by T, to the surface, (P,).

        To the tangent planes of the nearest samples, no further than to the samples themselves:
        so the spacing of the samples hardly counts.
        """
        moved = se3.transform(T, probes)
        near, distance = self.index.nearest(moved, 4)
        offset = moved[:, None] - self.points[near]
        height = np.abs(np.einsum("pki,pki->pk", offset, self.normals[near]))
        sideways = np.sqrt(np.maximum(distance**2 - height**2, 0.0))
        spacing = 2 * distance[:, :1].mean()
        return np.asarray(np.hypot(height, np.maximum(sideways - spacing, 0.0)).min(axis=1))

    def percents(self, turns: Iterable[FloatArray]) -> FloatArray:
        """Distances after each turn and its inverse, in per cent of the diameter, (2S, P).

        Of the surface's probes first, then of the vertices.
        """
        both = [T for turn in turns for T in (turn, se3.invert(turn))]
        probes = np.concatenate([self.probes, self.corners])
        rows = [self.distances_m(T, probes) for T in both]
        return np.stack(rows) * 100 / self.diameter_m

    def test_axis(self, axis: FloatArray, folds: Sequence[int]) -> list[SymmetryProposal]:
        """The symmetry about an axis through the centre: of any angle, or the highest fold."""
        hopeful = [f for f in folds if self._is_hopeful(axis, self.centre, f)]
        best: SymmetryProposal | None = None
        for fold in hopeful:
            refined_axis, point = self._refine(axis, fold)
            proposal = self._measure(*self._snap(refined_axis, point, fold), fold)
            if self._accepts(proposal):
                best = proposal
        if best is None:
            return []
        if best.fold is not None and best.fold > 2 and len(folds) > 1:
            whole = self._measure(best.axis, best.point_m, None)
            if self._accepts(whole):
                return [whole]
        return [best]

    def _accepts(self, proposal: SymmetryProposal) -> bool:
        return (
            proposal.p95_percent <= self.tolerance
            and proposal.max_percent <= _OUTLIER_FACTOR * self.tolerance
        )

    def _is_hopeful(self, axis: FloatArray, point: FloatArray, fold: int) -> bool:
        turn = rotation_about(axis, point, 2 * math.pi / fold)
        percent = self.distances_m(turn, self.probes[:300]) * 100 / self.diameter_m
        return float(np.percentile(percent, 90)) <= _HOPEFUL * self.tolerance

    def _refine(self, axis: FloatArray, fold: int) -> tuple[FloatArray, FloatArray]:
        """Fit the turn to the surface (point to plane); its axis and a point on it."""
        turn = rotation_about(axis, self.centre, 2 * math.pi / fold)
        for _ in range(_REFINE_STEPS):
            moved = se3.transform(turn, self.probes)
            near = self.index.nearest(moved)[0][:, 0]
            normals = self.normals[near]
            residual = np.einsum("pi,pi->p", self.points[near] - moved, normals)
            weight = 1 / (1 + (residual / (0.01 * self.diameter_m)) ** 2)
            jacobian = np.hstack([np.cross(moved - self.centre, normals), normals])
            # turned parts slide along their surface freely: damping keeps them where they are
            damping = 1e-4 * np.diag([self.diameter_m**2] * 3 + [1.0] * 3) * len(moved)
            A = jacobian.T @ (weight[:, None] * jacobian) + damping
            step = np.linalg.solve(A, jacobian.T @ (weight * residual))
            R = se3.exp_so3(step[:3])
            turn = se3.make_transform(R, self.centre - R @ self.centre + step[3:]) @ turn
        rotation = se3.log_so3(turn[:3, :3])
        norm = float(np.linalg.norm(rotation))
        if norm < 1e-6:
            return axis, self.centre
        fitted = rotation / norm * np.sign(rotation[int(np.argmax(np.abs(rotation)))])
        # the fixed line of the turn: (I - R) p = t, the solution nearest the centre
        A = np.eye(3) - turn[:3, :3]
        offset = np.linalg.lstsq(A, turn[:3, 3] - A @ self.centre, rcond=1e-6)[0]
        return fitted, self.centre + offset

    def _snap(
        self, axis: FloatArray, point: FloatArray, fold: int
    ) -> tuple[FloatArray, FloatArray]:
        """Prefer the object's own axes and origin where they fit within the tolerance too."""
        own = np.eye(3)[int(np.argmax(np.abs(axis)))]
        near = abs(float(own @ axis)) > math.cos(math.radians(_SNAP_DEG))
        origin = np.zeros(3)
        # the point of the line next to the origin: what is along the axis means nothing
        foot = point - axis * float(axis @ point)
        own_foot = point - own * float(own @ point)
        fitted = self._measure(axis, foot, fold).p95_percent
        for a, p in [(own, origin), (own, own_foot)] if near else [(axis, origin)]:
            percent = self._measure(a, p, fold).p95_percent
            if percent <= fitted + _SNAP_PERCENT:
                return a, p
        return axis, foot

    def _measure(self, axis: FloatArray, point: FloatArray, fold: int | None) -> SymmetryProposal:
        percents = self.percents(_list_turns(axis, point, fold))
        even = percents[:, :PROBES]  # the vertices crowd where the mesh is fine
        worst = even[int(np.argmax(np.percentile(even, 95, axis=1)))]
        return SymmetryProposal(
            axis=axis,
            point_m=point,
            fold=fold,
            mean_percent=float(worst.mean()),
            p95_percent=float(np.percentile(worst, 95)),
            max_percent=float(percents.max()),
        )


def _list_turns(axis: FloatArray, point: FloatArray, fold: int | None) -> list[FloatArray]:
    """Turns (4x4) that test a symmetry; their inverses are the others."""
    if fold is None:
        # not a divisor of any fold, so that no prism passes for a cylinder
        angles = [2 * math.pi * (i + 0.5) / _CONTINUOUS_STEPS / 2 for i in range(12)]
    else:
        angles = [2 * math.pi * i / fold for i in range(1, fold // 2 + 1)]
    return [rotation_about(axis, point, angle) for angle in angles]


def _with_colors(proposal: SymmetryProposal, looks: SurfaceColors) -> SymmetryProposal:
    """The proposal with the colours of its worst turn."""
    turns = _list_turns(proposal.axis, proposal.point_m, proposal.fold)
    compared = [looks.compare(turn) for turn in turns]
    differences, shares = zip(*compared, strict=True)
    return replace(proposal, color_difference=max(differences), color_share=max(shares))


def _candidate_axes(mesh: Mesh, points: FloatArray) -> list[FloatArray]:
    """The object's own axes, the principal axes, and the directions most faces look at."""
    centred = points - points.mean(axis=0)
    axes = [*np.eye(3), *np.linalg.eigh(centred.T @ centred)[1].T]
    a, b, c = (mesh.vertices_m[mesh.faces[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1)
    normals = cross / np.maximum(area[:, None], 1e-300)
    total = area.sum()
    for _ in range(3):
        seed = normals[int(np.argmax(area))]
        close = np.abs(normals @ seed) > math.cos(math.radians(5))
        if area[close].sum() > 0.02 * total:
            axes.append(seed)
        area = np.where(close, 0.0, area)
    distinct: list[FloatArray] = []
    for axis in axes:
        if not any(_same_line(axis, other, 1.0) for other in distinct):
            distinct.append(axis / np.linalg.norm(axis))
    return distinct


def _perpendicular_axes(main: SymmetryProposal) -> list[FloatArray]:
    helper = np.eye(3)[int(np.argmin(np.abs(main.axis)))]
    u = np.cross(main.axis, helper)
    u /= np.linalg.norm(u)
    v = np.cross(main.axis, u)
    # about a continuous axis they are all alike
    angles = [0.0] if main.fold is None else np.arange(_SCAN_STEPS) * math.pi / _SCAN_STEPS
    return [u * math.cos(angle) + v * math.sin(angle) for angle in angles]


def _same_line(a: FloatArray, b: FloatArray, degrees: float = _SNAP_DEG) -> bool:
    cosine = abs(float(a @ b)) / float(np.linalg.norm(a) * np.linalg.norm(b))
    return cosine > math.cos(math.radians(degrees))


def _is_across(a: FloatArray, b: FloatArray) -> bool:
    return abs(float(a @ b)) < math.sin(math.radians(_SNAP_DEG))


def _strongest(found: list[SymmetryProposal]) -> list[SymmetryProposal]:
    """One proposal per line: highest order first, then those whose colours agree, the best fit.

    Of the half turns of a box two make the third, so one that the label keeps must come first.
    """
    order = sorted(found, key=lambda s: (-(s.fold or 1000), not s.colors_agree, s.mean_percent))
    kept: list[SymmetryProposal] = []
    for proposal in order:
        if not any(_same_line(proposal.axis, other.axis) for other in kept):
            kept.append(proposal)
    return kept


def _generators(found: list[SymmetryProposal], diameter_m: float) -> list[SymmetryProposal]:
    """Leave out what the stronger ones make together; keep one continuous axis (the library's)."""
    kept: list[SymmetryProposal] = []
    group = [np.eye(3)]
    continuous = next((s for s in found if s.fold is None), None)
    for proposal in found:
        if continuous is not None and proposal is not continuous:
            if not _is_across(proposal.axis, continuous.axis) or len(kept) > 1:
                continue
            proposal = replace(proposal, fold=2)
        fold = proposal.fold
        if fold is None:
            kept.append(proposal)
            continue
        turns = [
            rotation_about(proposal.axis, np.zeros(3), 2 * math.pi * i / fold)[:3, :3]
            for i in range(1, fold)
        ]
        if all(_contains(group, R) for R in turns):
            continue
        kept.append(proposal)
        group += [g @ R for g in list(group) for R in turns]
    return [_through_origin(s, diameter_m) for s in kept]


def _contains(group: Sequence[FloatArray], R: FloatArray) -> bool:
    return any(se3.rotation_angle_rad(g, R) < math.radians(_SNAP_DEG) for g in group)


def _through_origin(proposal: SymmetryProposal, diameter_m: float) -> SymmetryProposal:
    """A point a thousandth of the diameter off the origin is the origin."""
    if np.linalg.norm(proposal.point_m) < 1e-3 * diameter_m:
        return replace(proposal, point_m=np.zeros(3))
    return proposal


def _tidy(value: float) -> float:
    return round(float(value), 5) + 0.0
