"""An endless film of table scenes, seen by a camera that orbits them smoothly.

Frame i depends on the seed and i alone, so a film can be shown again however fast it was played.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.geometry import se3
from heatnet_ros.mesh import Mesh
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.rendering.rasterizer import Rasterizer, Rendering
from heatnet_ros.rendering.scene import Scene, SceneSettings, build_table_scene, look_at
from heatnet_ros.rendering.sensor import apply_color_sensor, apply_depth_sensor
from heatnet_ros.types import DepthF32, FloatArray, ImageU8

# as BOP counts targets: what is hidden to nine tenths is not asked for
MIN_VISIBLE = 0.1
_TURN_S, _NOD_S, _ZOOM_S = 31.0, 11.0, 17.0


@dataclass(frozen=True, eq=False)
class FilmFrame:
    """rgb HxWx3 uint8, depth_m HxW float32 (0 = hole), poses_true: name -> T_camera_object.

    poses_true holds the objects of which at least ``MIN_VISIBLE`` can be seen.
    """

    rgb: ImageU8
    depth_m: DepthF32
    poses_true: dict[str, FloatArray]


def orbit_camera(time_s: float, scale: float = 1.0) -> FloatArray:
    """T_world_camera at a time: elevation 25 to 65 degrees, 0.55 to 0.85 m from the objects.

    scale: of the distance.
    """
    azimuth = 2 * np.pi * time_s / _TURN_S
    elevation = np.radians(45 + 20 * np.sin(2 * np.pi * time_s / _NOD_S))
    distance = scale * (0.7 + 0.15 * np.sin(2 * np.pi * time_s / _ZOOM_S))
    target = np.array([0.03 * np.cos(3 * azimuth), 0.03 * np.sin(2 * azimuth), 0.03])
    offset = [
        np.cos(elevation) * np.cos(azimuth),
        np.cos(elevation) * np.sin(azimuth),
        np.sin(elevation),
    ]
    return look_at(target + distance * np.array(offset), target)


class Film:
    """Renders the frames. Use as a context manager; all calls from one thread (OpenGL)."""

    def __init__(
        self,
        library: ObjectLibrary,
        size_wh: tuple[int, int],
        K: FloatArray,
        *,
        seed: int = 0,
        rate_hz: float = 10.0,
        objects_per_scene: int = 3,
        frames_per_scene: int = 40,
        noise: bool = True,
        scale: float = 1.0,
        camera: Callable[[float], FloatArray] | None = None,
    ) -> None:
        """Load the meshes. scale: of the table and the camera's distance.

        camera: T_world_camera at a time in seconds, where it is not ``orbit_camera``.

        Raises ConfigError where an object has no mesh, EngineError without EGL.
        """
        self._meshes = _load_meshes(library)
        self._surfaces = {name: o.surface[:, :3] for name, o in library.objects.items()}
        self._K, self._seed, self._rate_hz, self._noise = K, seed, rate_hz, noise
        self._count = min(objects_per_scene, len(self._meshes))
        self._frames_per_scene, self._scale = frames_per_scene, scale
        self._camera = camera or (lambda time_s: orbit_camera(time_s, scale))
        self._scenes: dict[int, Scene] = {}
        self._rasterizer = Rasterizer(size_wh)

    def __enter__(self) -> Film:
        return self

    def __exit__(self, *_: object) -> None:
        self._rasterizer.release()

    def render(self, index: int) -> FilmFrame:
        """Frame ``index`` of the film, as the camera's sensor gives it."""
        scene = self._scene_of(index // self._frames_per_scene)
        T_world_camera = self._camera(index / self._rate_hz)
        picture = self._rasterizer.render(scene, self._K, T_world_camera)
        poses = self._visible_poses(scene, T_world_camera, picture)
        if not self._noise:
            return FilmFrame(picture.rgb, picture.depth_m, poses)
        # one exposure per film, new noise per frame
        rng = np.random.default_rng((self._seed, index))
        exposure = np.random.default_rng(self._seed)
        rgb = apply_color_sensor(exposure, picture.rgb, strength=0.5, noise_rng=rng)
        return FilmFrame(rgb, apply_depth_sensor(rng, picture.depth_m), poses)

    def _scene_of(self, scene_index: int) -> Scene:
        if scene_index not in self._scenes:
            names = self._names_of(scene_index)
            scene = build_table_scene(
                {name: self._meshes[name] for name in names},
                np.random.default_rng((self._seed, 1, scene_index)),
                SceneSettings(
                    objects=(len(names), len(names)),
                    distractors=(1, 4),
                    spread_m=SceneSettings.spread_m * self._scale,
                ),
            )
            # only the latest: a scene holds two textures
            self._scenes = {scene_index: scene}
        return self._scenes[scene_index]

    def _names_of(self, scene_index: int) -> list[str]:
        """The next few objects of an endless shuffled round, so that each gets its turn."""
        names = list(self._meshes)
        order = np.random.default_rng(self._seed).permutation(len(names))
        first = scene_index * self._count
        return [names[order[(first + i) % len(names)]] for i in range(self._count)]

    def _visible_poses(
        self, scene: Scene, T_world_camera: FloatArray, picture: Rendering
    ) -> dict[str, FloatArray]:
        T_camera_world = se3.invert(T_world_camera)
        seen = np.bincount(picture.instance_ids.ravel(), minlength=len(scene.objects) + 1)[1:]
        poses = {}
        for placed, pixels_seen in zip(scene.objects, seen, strict=True):
            T = T_camera_world @ placed.T_world_object
            whole, _ = self._rasterizer.silhouette(placed.mesh, self._K, T)
            if pixels_seen >= MIN_VISIBLE * max(int(np.count_nonzero(whole)), 1):
                poses[placed.name] = T
        return poses


def _load_meshes(library: ObjectLibrary) -> dict[str, Mesh]:
    meshes = {}
    for name, model in library.objects.items():
        try:
            mesh = model.load_mesh()
        except DataError as error:
            raise ConfigError(f"Object '{name}' of {library.path}: {error}") from error
        if mesh is None:
            raise ConfigError(
                f"Object '{name}' of {library.path} cannot be drawn: its mesh "
                f"{model.mesh_path} is missing (LINEMOD's are not shipped: models/README.md). Put "
                "it there or take another object library, such as the demo's."
            )
        meshes[name] = mesh
    return meshes
