"""What is in a picture, and where the camera stands: the description every renderer takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from heatnet_ros.config import check_number, check_range
from heatnet_ros.errors import ConfigError
from heatnet_ros.geometry import se3
from heatnet_ros.mesh import Mesh
from heatnet_ros.rendering.primitives import random_primitive
from heatnet_ros.rendering.resting import resting_rotations
from heatnet_ros.rendering.textures import random_texture
from heatnet_ros.types import FloatArray, ImageU8

POSES = ("upright", "resting", "any")
# nearer than the renderers' near plane nothing is drawn
DISTANCE_RANGE_M = (0.05, 10.0)
DISTRACTOR_SPREAD = 1.6  # of the objects': they stand around them too
# the smallest room; a larger one has everything in proportion, see ``Scene.scale``
ROOM_HALF_SIZE_M = 2.5
FLOOR_Z_M = -0.75


@dataclass(frozen=True, eq=False)
class Placed:
    """A mesh in the world. name is '' for a distractor. gain: RGB factor on its colours."""

    name: str
    mesh: Mesh
    T_world_object: FloatArray
    gain: FloatArray = field(default_factory=lambda: np.ones(3))
    specular: float = 0.2
    shininess: float = 20.0


@dataclass(frozen=True, eq=False)
class Scene:
    """Objects on a table in a room. World: z up, table at z = 0, metres.

    lights: Lx2x3, direction towards the light and its colour. ambient: RGB. room_half_size_m: from
    the table's middle to the walls.
    """

    objects: tuple[Placed, ...]
    distractors: tuple[Placed, ...]
    table_texture: ImageU8
    room_texture: ImageU8
    table_half_size_m: float
    lights: FloatArray
    ambient: FloatArray
    room_half_size_m: float = ROOM_HALF_SIZE_M

    @property
    def scale(self) -> float:
        """Size of this room over that of the smallest: of its walls, floor, lamps and shadows."""
        return self.room_half_size_m / ROOM_HALF_SIZE_M

    @property
    def floor_z_m(self) -> float:
        """Height of the floor, below the table's."""
        return FLOOR_Z_M * self.scale


@dataclass(frozen=True)
class SceneSettings:
    """Ranges that scenes and cameras are drawn from. Angles in degrees, lengths in metres.

    poses: upright (z up, as the mesh is), resting (on any face that the part can lie on) or any.
    gap: how near objects may stand, 1: their circles never overlap. aim_m: how far from the
    table's middle the camera looks, which cuts objects off at the image's border.
    """

    objects: tuple[int, int] = (3, 5)
    distractors: tuple[int, int] = (0, 5)
    spread_m: float = 0.22
    gap: float = 0.75
    distance_m: tuple[float, float] = (0.45, 0.95)
    elevation_deg: tuple[float, float] = (20.0, 70.0)
    roll_deg: float = 10.0
    color_jitter: float = 0.15
    light_range: tuple[float, float] = (0.5, 1.1)
    poses: str = "upright"
    aim_m: float = 0.1

    def __post_init__(self) -> None:
        if self.poses not in POSES:
            raise ConfigError(f"poses: expected one of {', '.join(POSES)}, got '{self.poses}'.")
        check_range("objects", self.objects, 0, whole=True)
        check_range("distractors", self.distractors, 0, whole=True)
        check_range("distance_m", self.distance_m, *DISTANCE_RANGE_M)
        # from below there is only the table to see, and straight from above no way is up
        check_range("elevation_deg", self.elevation_deg, 0, 89)
        check_range("light_range", self.light_range, 0)
        for key in ("spread_m", "gap", "aim_m"):
            check_number(key, getattr(self, key), 0)
        check_number("roll_deg", self.roll_deg, 0, 180)
        check_number("color_jitter", self.color_jitter, 0, 1)

    @property
    def room_half_size_m(self) -> float:
        """A room that holds every camera, lamps behind it, and all that stands on the table.

        A camera outside would see the wall's back only. 2.5 m is enough up to 2 m of distance.
        """
        far_m = self.distance_m[1]
        # lamps hang at 0.88 of the half size, so 1.15 keeps them behind the farthest camera
        reach_m = 1.15 * (far_m + 1.5 * self.aim_m)
        around_m = 1.2 * DISTRACTOR_SPREAD * self.spread_m
        return max(ROOM_HALF_SIZE_M, 1.2 * far_m, reach_m, around_m)


def build_table_scene(
    meshes: Mapping[str, Mesh],
    rng: np.random.Generator,
    settings: SceneSettings = SceneSettings(),
    clutter: tuple[Mesh, ...] = (),
) -> Scene:
    """Put some of the objects and distractors upright on a table, apart from each other.

    meshes: object name -> mesh, z up. clutter: further meshes to draw distractors from.
    Deterministic from the generator's state.
    """
    names = list(meshes)
    count = min(int(rng.integers(settings.objects[0], settings.objects[1] + 1)), len(names))
    chosen = [names[i] for i in rng.permutation(len(names))[:count]]
    taken: list[tuple[float, float, float]] = []
    objects = []
    for name in chosen:
        T = _stand_on_table(
            meshes[name], rng, taken, settings.spread_m, settings.gap, settings.poses
        )
        if T is not None:
            objects.append(_placed(name, meshes[name], T, rng, settings.color_jitter))
    distractors = []
    for _ in range(int(rng.integers(settings.distractors[0], settings.distractors[1] + 1))):
        known = clutter and rng.random() < 0.6
        mesh = clutter[int(rng.integers(len(clutter)))] if known else random_primitive(rng)
        T = _stand_on_table(mesh, rng, taken, settings.spread_m * DISTRACTOR_SPREAD, settings.gap)
        if T is not None:
            distractors.append(_placed("", mesh, T, rng, 0.3))
    return Scene(
        objects=tuple(objects),
        distractors=tuple(distractors),
        table_texture=random_texture(rng),
        room_texture=random_texture(rng),
        table_half_size_m=_table_half_size(float(rng.uniform(0.4, 1.2)), settings),
        lights=_random_lights(rng, settings.light_range),
        ambient=rng.uniform(0.25, 0.5) * (1 + rng.uniform(-0.06, 0.06, 3)),
        room_half_size_m=settings.room_half_size_m,
    )


def _table_half_size(drawn_m: float, settings: SceneSettings) -> float:
    """In a larger room the table grows too, so that what is spread wider still stands on it."""
    room_m = settings.room_half_size_m
    if room_m <= ROOM_HALF_SIZE_M:
        return drawn_m
    # 0.4, the smallest drawn, becomes where the last distractor may stand
    around = DISTRACTOR_SPREAD * settings.spread_m / 0.4
    return min(drawn_m * max(room_m / ROOM_HALF_SIZE_M, around), 0.9 * room_m)


def _stand_on_table(
    mesh: Mesh,
    rng: np.random.Generator,
    taken: list[tuple[float, float, float]],
    spread_m: float,
    gap: float,
    poses: str = "upright",
) -> FloatArray | None:
    """A free place for the mesh at a random heading; None if there is none."""
    R_down = _attitude(mesh, rng, poses)
    turned = mesh.vertices_m @ R_down.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    radius = float(np.linalg.norm(high[:2] - low[:2]) / 2) * gap
    for _ in range(20):
        x, y = rng.uniform(-spread_m, spread_m, 2)
        if all(np.hypot(x - a, y - b) > radius + r for a, b, r in taken):
            taken.append((x, y, radius))
            R = se3.exp_so3(np.array([0.0, 0.0, rng.uniform(-np.pi, np.pi)]))
            return se3.make_transform(R @ R_down, np.array([x, y, -low[2]]))
    return None


def _attitude(mesh: Mesh, rng: np.random.Generator, poses: str) -> FloatArray:
    """Which side is down, 3x3."""
    if poses == "upright":
        return np.eye(3)
    if poses == "any":
        q = rng.normal(size=4)
        return se3.exp_so3(2 * np.arccos(abs(q[0]) / np.linalg.norm(q)) * _unit(q[1:]))
    rotations, shares = _resting(mesh)
    return np.asarray(rotations[int(rng.choice(len(shares), p=shares))])


def _unit(v: FloatArray) -> FloatArray:
    return np.asarray(v / max(float(np.linalg.norm(v)), 1e-12))


# by identity: a mesh has no other, and hulls of scans take a tenth of a second
_RESTING: dict[int, tuple[Mesh, tuple[FloatArray, FloatArray]]] = {}


def _resting(mesh: Mesh) -> tuple[FloatArray, FloatArray]:
    if id(mesh) not in _RESTING:
        _RESTING[id(mesh)] = (mesh, resting_rotations(mesh))
    return _RESTING[id(mesh)][1]


def _placed(
    name: str, mesh: Mesh, T: FloatArray, rng: np.random.Generator, jitter: float
) -> Placed:
    gain = rng.uniform(1 - jitter, 1 + jitter) * (1 + rng.uniform(-jitter, jitter, 3) / 2)
    return Placed(name, mesh, T, gain, float(rng.uniform(0, 0.45)), float(rng.uniform(5, 60)))


def _random_lights(rng: np.random.Generator, strength: tuple[float, float]) -> FloatArray:
    lights = []
    for share in (1.0, 0.4):
        azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(0.5, 1.45)
        direction = [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
        color = share * rng.uniform(*strength) * (1 + rng.uniform(-0.08, 0.08, 3))
        lights.append([direction, color])
    return np.array(lights)


def look_at(eye_m: FloatArray, target_m: FloatArray, roll_rad: float = 0.0) -> FloatArray:
    """T_world_camera of an optical frame at ``eye_m`` that looks at ``target_m``, upright."""
    forward = target_m - eye_m
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward], axis=1)
    return se3.make_transform(R @ se3.exp_so3(np.array([0.0, 0.0, roll_rad])), eye_m)


def random_camera(
    rng: np.random.Generator,
    settings: SceneSettings = SceneSettings(),
) -> FloatArray:
    """T_world_camera looking near the middle of the table."""
    azimuth = rng.uniform(-np.pi, np.pi)
    elevation = np.radians(rng.uniform(*settings.elevation_deg))
    target = np.append(rng.uniform(-settings.aim_m, settings.aim_m, 2), rng.uniform(0.0, 0.08))
    offset = [
        np.cos(elevation) * np.cos(azimuth),
        np.cos(elevation) * np.sin(azimuth),
        np.sin(elevation),
    ]
    eye = target + rng.uniform(*settings.distance_m) * np.array(offset)
    return look_at(eye, target, np.radians(rng.uniform(-1, 1) * settings.roll_deg))
