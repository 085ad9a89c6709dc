"""Path tracer (Mitsuba 3): the rasteriser's scenes with soft shadows and light between surfaces.

Everything is handed to Mitsuba in the camera's frame, stretched by fy/fx along y: Mitsuba knows
square pixels only, and so the projection is exact for every K. Shading angles are off by at most
|fy/fx - 1| / 2 rad, which is 0.06 degrees for LINEMOD's camera.
"""

from __future__ import annotations

import importlib
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import ConfigError, EngineError
from heatnet_ros.geometry import se3
from heatnet_ros.mesh import Mesh
from heatnet_ros.rendering.rasterizer import NEAR_M, Rendering, far_of
from heatnet_ros.rendering.scene import Placed, Scene
from heatnet_ros.types import DepthF32, FloatArray, ImageU8

WALL_TOP_M = 1.5
LAMP_DISTANCE_M = 2.2
# radius by distance: below 0.05 shadows are as sharp as in the sun, above 0.4 they hardly show
LAMP_SIZE_RANGE = (0.05, 0.4)
METALLIC_SHARE = 0.1
# mean grey level of pictures: those of LM-O lie between 56 and 112
MEAN_GREY_RANGE = (50.0, 130.0)
CONTRAST_RANGE = (0.95, 1.6)
_ROULETTE_DEPTH = 4
_GUIDE_SAMPLES = 4
_INSTALL = "pip install 'heatnet_ros[pathtrace]'"

ImageF32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Radiance:
    """What reaches the sensor: radiance HxWx3 float32, linear, before exposure.

    depth_m and instance_ids as in ``Rendering``.
    """

    radiance: ImageF32
    depth_m: DepthF32
    instance_ids: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class _Surface:
    """A mesh in the world. emission: RGB radiance of a lamp, or None.

    gain: factor on its colours. gloss: roughness, specular, metallic; None for matte surfaces.
    """

    name: str
    mesh: Mesh
    T_world_object: FloatArray
    gain: FloatArray = field(default_factory=lambda: np.ones(3))
    gloss: tuple[float, float, float] | None = None
    emission: FloatArray | None = None


class PathTracer:
    """Draws scenes at a fixed size, like ``Rasterizer``; the same scene gives the same picture.

    samples: paths per pixel. denoise: Open Image Denoise, guided by albedo and normals.
    variant: Mitsuba's name of the way to compute. ``scalar_rgb`` (default) runs everywhere;
    ``llvm_ad_rgb`` takes half the time and needs libLLVM 16 or later (DRJIT_LIBLLVM_PATH);
    pictures of two variants differ in their noise only. threads: of the whole process.

    Raises EngineError when Mitsuba, the denoiser or the variant cannot be had.
    """

    def __init__(
        self,
        size_wh: tuple[int, int],
        samples: int = 4,
        *,
        max_depth: int = 5,
        denoise: bool = True,
        variant: str = "scalar_rgb",
        threads: int = 1,
    ) -> None:
        if samples < 1 or max_depth < 2:
            raise ConfigError(
                f"Path tracer: expected samples >= 1 and max_depth >= 2, got {samples}, {max_depth}"
            )
        self.size_wh, self.samples = size_wh, samples
        self._max_depth, self._variant = max_depth, variant
        self._mi = _import("mitsuba")
        self._oidn = _import("mitsuba_oidn") if denoise else None
        if variant not in self._mi.variants():
            raise ConfigError(
                f"Path tracer: unknown variant '{variant}', Mitsuba here has "
                f"{', '.join(self._mi.variants())}."
            )
        try:
            self._mi.set_variant(variant)
        except ImportError as error:
            raise EngineError(
                f"Mitsuba cannot start its variant '{variant}': {error}. Use 'scalar_rgb'."
            ) from error
        self._dr = _import("drjit")
        self._dr.set_thread_count(threads)

    def __enter__(self) -> PathTracer:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is kept between pictures; here so that both renderers are used alike."""

    def render(
        self, scene: Scene, K: FloatArray, T_world_camera: FloatArray, seed: int = 0
    ) -> Rendering:
        """Draw the scene as a pinhole camera with K (3x3) at ``T_world_camera`` sees it.

        Depth and ids belong to the ray through each pixel's centre, as in the rasteriser.
        Materials and lamps follow from the scene; seed: of the noise and of the exposure.
        """
        traced = self.trace(scene, K, T_world_camera, seed)
        rgb = develop(traced.radiance, np.random.default_rng((_fingerprint(scene), seed)))
        return Rendering(rgb, traced.depth_m, traced.instance_ids)

    def trace(
        self, scene: Scene, K: FloatArray, T_world_camera: FloatArray, seed: int = 0
    ) -> Radiance:
        """The radiance that reaches each pixel, its depth and the object it shows."""
        self._mi.set_variant(self._variant)
        stretch = np.diag([-1.0, -K[1, 1] / K[0, 0], 1.0, 1.0])  # Mitsuba: x left, y up
        T_mi_world = stretch @ se3.invert(T_world_camera)
        sky = {"type": "rgb", "value": np.asarray(scene.ambient, float).tolist()}
        independent = {"type": "independent", "sample_count": self.samples}
        # without jitter the only sample of a pixel is its centre
        centre = {"type": "stratified", "sample_count": 1, "jitter": False}
        description: dict[str, Any] = {
            "type": "scene",
            "picture": self._sensor(K, independent, far_of(scene)),
            "centres": self._sensor(K, centre, far_of(scene)),
            "sky": {"type": "constant", "radiance": sky},
        }
        for surface in _surfaces(scene):
            description[surface.name] = self._shape(surface, T_mi_world)
        built = self._mi.load_dict(description, parallel=False, optimize=False)
        depth_m, instance_ids = self._first_hits(built)
        return Radiance(self._shade(built, seed), depth_m, instance_ids)

    def _sensor(self, K: FloatArray, sampler: dict[str, Any], far_m: float) -> dict[str, Any]:
        width, height = self.size_wh
        film = {"type": "hdrfilm", "width": width, "height": height, "rfilter": {"type": "box"}}
        film |= {"pixel_format": "rgb", "component_format": "float32"}
        return {
            "type": "perspective",
            "sampler": sampler,
            "fov": float(np.degrees(2 * np.arctan(width / 2 / K[0, 0]))),
            "fov_axis": "x",
            # + 0.5: pixel (0, 0) is the centre of the top-left pixel, Mitsuba's edge is at 0;
            # the stretch keeps the distance in pixels from the principal point
            "principal_point_offset_x": float(0.5 - (K[0, 2] + 0.5) / width),
            "principal_point_offset_y": float(0.5 - (K[1, 2] + 0.5) / height),
            "near_clip": NEAR_M,
            "far_clip": far_m,
            "film": film,
        }

    def _shape(self, surface: _Surface, T_mi_world: FloatArray) -> Any:
        mi, mesh = self._mi, surface.mesh
        properties = mi.Properties()
        properties["bsdf"] = mi.load_dict(self._bsdf(surface))
        if surface.emission is not None:
            radiance = {"type": "rgb", "value": surface.emission.tolist()}
            properties["emitter"] = mi.load_dict({"type": "area", "radiance": radiance})
        shape = mi.Mesh(
            surface.name,
            vertex_count=len(mesh.vertices_m),
            face_count=len(mesh.faces),
            has_vertex_normals=True,
            has_vertex_texcoords=mesh.uv is not None,
            props=properties,
        )
        shape.set_id(surface.name)
        shape.add_attribute("vertex_color", 3, _flat(_to_linear(mesh.colors, surface.gain)))
        T = T_mi_world @ surface.T_world_object
        values = mi.traverse(shape)
        values["vertex_positions"] = _flat(se3.transform(T, mesh.vertices_m))
        values["vertex_normals"] = _flat(_turned(mesh.normals, T[:3, :3]))
        if mesh.uv is not None:
            values["vertex_texcoords"] = _flat(mesh.uv * (1, -1) + (0, 1))  # Mitsuba's v is down
        values["faces"] = mesh.faces.astype(np.uint32).ravel()
        values.update()
        return shape

    def _bsdf(self, surface: _Surface) -> dict[str, Any]:
        mesh = surface.mesh
        color: dict[str, Any] = {"type": "mesh_attribute", "name": "vertex_color"}
        if mesh.uv is not None and mesh.texture is not None:
            linear = self._mi.Bitmap(_to_linear(mesh.texture, surface.gain))
            color = {"type": "bitmap", "bitmap": linear, "raw": True}
        bsdf: dict[str, Any] = {"type": "diffuse", "reflectance": color}
        if surface.gloss is not None:
            names = ("roughness", "specular", "metallic")
            bsdf = {"type": "principled", "base_color": color}
            bsdf |= dict(zip(names, surface.gloss, strict=True))
        # scans and CAD exports have triangles that face the wrong way
        return {"type": "twosided", "bsdf": bsdf}

    def _shade(self, built: Any, seed: int) -> ImageF32:
        path = {"type": "path", "max_depth": self._max_depth, "rr_depth": _ROULETTE_DEPTH}
        color = self._planes(built, path, seed, self.samples)
        if self._oidn is None:
            return color
        # in a pass of their own: beside the path they would double its time
        guides = {"type": "aov", "aovs": "albedo:albedo,normal:sh_normal"}
        planes = self._planes(built, guides, seed, _GUIDE_SAMPLES)
        albedo, normal = (np.ascontiguousarray(planes[..., i : i + 3]) for i in (0, 3))
        clean = self._oidn.denoise(color, np.clip(albedo, 0, 1), normal, hdr=True)
        return np.maximum(np.array(clean, np.float32), 0)

    def _planes(self, built: Any, integrator: dict[str, Any], seed: int, samples: int) -> ImageF32:
        method = self._mi.load_dict(integrator)
        image = self._mi.render(built, sensor=0, integrator=method, seed=seed % 2**32, spp=samples)
        # a path that meets a degenerate triangle is worth less than a NaN that spreads
        return np.nan_to_num(np.array(image, np.float32), posinf=0.0, neginf=0.0)

    def _first_hits(self, built: Any) -> tuple[DepthF32, NDArray[np.int32]]:
        integrator = self._mi.load_dict({"type": "aov", "aovs": "at:position,what:shape_index"})
        image = np.array(self._mi.render(built, sensor=1, integrator=integrator, spp=1))
        shapes = built.shapes()
        numbers = np.arange(1, len(shapes) + 1)
        if not self._variant.startswith("scalar"):
            # vectorised variants number the shapes of all scenes they ever had
            pointers = built.shapes_dr()
            numbers = np.array(self._dr.reinterpret_array(self._mi.UInt32, pointers))
        ids = np.zeros(int(max(numbers.max(), image[..., 3].max())) + 1, np.int32)
        for number, shape in zip(numbers, shapes, strict=True):
            kind, _, index = shape.id().partition("_")
            ids[number] = int(index) + 1 if kind == "object" else 0
        return image[..., 2].astype(np.float32), ids[np.rint(image[..., 3]).astype(int)]


def develop(radiance: ImageF32, rng: np.random.Generator) -> ImageU8:
    """A camera's picture of the radiance HxWx3: random exposure, white balance and contrast."""
    grey = rng.uniform(*MEAN_GREY_RANGE) / 255
    contrast = rng.uniform(*CONTRAST_RANGE)
    balanced = radiance * (1 + rng.uniform(-0.06, 0.06, 3)).astype(np.float32)
    exposure = _expose(balanced[::4, ::4], grey, contrast)
    return np.asarray(np.rint(_encode(balanced * exposure, contrast) * 255), np.uint8)


def _expose(radiance: ImageF32, grey: float, contrast: float) -> np.float32:
    """The exposure that brings the picture's mean to ``grey`` (0..1), what clips included."""
    level = max(float(radiance.mean()), 1e-12)
    low, high = 1e-3 / level, 1e3 / level
    for _ in range(24):
        middle = np.sqrt(low * high)
        if _encode(radiance * np.float32(middle), contrast).mean() < grey:
            low = middle
        else:
            high = middle
    return np.float32(middle)


def _encode(exposed: ImageF32, contrast: float) -> ImageF32:
    """Display values 0..1: the sRGB curve to the power of ``contrast``."""
    linear = np.clip(exposed, 0, 1)
    encoded = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(encoded**contrast, np.float32)


def _surfaces(scene: Scene) -> list[_Surface]:
    """Everything in the scene; what the scene leaves open is drawn from its fingerprint."""
    rng = np.random.default_rng(_fingerprint(scene))
    groups = (("object", scene.objects), ("distractor", scene.distractors))
    surfaces = [
        _Surface(f"{kind}_{i}", p.mesh, p.T_world_object, p.gain, _gloss(p, rng))
        for kind, group in groups
        for i, p in enumerate(group)
    ]
    surfaces += _room(scene)
    for i, (direction, color) in enumerate(scene.lights):
        distance_m = LAMP_DISTANCE_M * scene.scale
        radius = distance_m * float(np.exp(rng.uniform(*np.log(LAMP_SIZE_RANGE))))
        surfaces.append(_lamp(f"lamp_{i}", direction, color, distance_m, radius))
    return surfaces


def _fingerprint(scene: Scene) -> int:
    parts = [scene.lights, scene.ambient, *(p.T_world_object for p in scene.objects)]
    return zlib.crc32(b"".join(np.ascontiguousarray(p, np.float64).tobytes() for p in parts))


def _gloss(placed: Placed, rng: np.random.Generator) -> tuple[float, float, float]:
    """(roughness, specular, metallic) of Disney's principled material."""
    width = np.sqrt(2 / (placed.shininess + 2))  # of the microfacets, for a Phong exponent
    metallic = rng.uniform(0.3, 0.9) if rng.random() < METALLIC_SHARE else 0.0
    return float(np.sqrt(width)), placed.specular, metallic


def _room(scene: Scene) -> list[_Surface]:
    """Table, floor and walls; there is no ceiling, the sky's light comes in from above."""
    x, y, z = np.eye(3)
    wide, half = scene.room_half_size_m, scene.table_half_size_m
    top_z, floor_z = WALL_TOP_M * scene.scale, scene.floor_z_m
    middle_z, tall = (top_z + floor_z) / 2, (top_z - floor_z) / 2
    table = _quad(0 * z, half * x, half * y, scene.table_texture, half / 0.45)
    quads = {"table": table}
    quads["floor"] = _quad(floor_z * z, wide * x, wide * y, scene.room_texture, 3.0)
    for i, (normal, side) in enumerate(((x, y), (-x, -y), (y, -x), (-y, x))):
        middle = middle_z * z - wide * normal
        quads[f"wall_{i}"] = _quad(middle, wide * side, tall * z, scene.room_texture, 3.0)
    return [_Surface(name, quad, np.eye(4)) for name, quad in quads.items()]


def _quad(
    middle: FloatArray, u: FloatArray, v: FloatArray, texture: ImageU8, repeat: float
) -> Mesh:
    """A parallelogram middle +- u +- v that faces u x v, with ``repeat`` textures along u."""
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1.0]])
    normal = np.cross(u, v) / np.linalg.norm(np.cross(u, v))
    times = np.array([repeat, repeat * np.linalg.norm(v) / np.linalg.norm(u)])
    return Mesh(
        middle + signs @ np.stack([u, v]),
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        np.tile(normal, (4, 1)),
        np.full((4, 3), 255, np.uint8),
        (signs + 1) / 2 * times,
        texture,
    )


def _lamp(
    name: str, direction: FloatArray, color: FloatArray, distance_m: float, radius: float
) -> _Surface:
    """A disc that lights the table's middle as the scene's light does, but from near by.

    The rasteriser's diffuse shading is colour * albedo * cos, so the irradiance is pi * colour.
    """
    toward = direction / np.linalg.norm(direction)
    side = np.cross(toward, [0.0, 1.0, 0.0] if abs(toward[1]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    angles = np.linspace(0, 2 * np.pi, 17)[:-1, None]
    # seen from the table counterclockwise: its face is the side that shines
    rim = np.cos(angles) * side + np.sin(angles) * np.cross(side, toward)
    vertices = np.vstack([[[0.0, 0, 0]], rim]) * radius + distance_m * toward
    corners = np.arange(16)
    faces = np.stack([0 * corners, corners + 1, (corners + 1) % 16 + 1], 1).astype(np.int32)
    black = np.zeros((17, 3), np.uint8)
    mesh = Mesh(vertices, faces, np.tile(-toward, (17, 1)), black)
    area = 8 * np.sin(np.pi / 8) * radius**2
    return _Surface(name, mesh, np.eye(4), emission=color * np.pi * distance_m**2 / area)


def _to_linear(srgb: NDArray[np.uint8], gain: FloatArray) -> ImageF32:
    """Reflectance of 8-bit sRGB colours (...x3) times ``gain``."""
    scaled = np.clip(np.arange(256)[:, None] / 255.0 * gain, 0, 1)
    table = np.where(scaled < 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    planes = [table[srgb[..., c], c] for c in range(3)]
    return np.stack(planes, axis=-1).astype(np.float32)


def _turned(normals: FloatArray, A: FloatArray) -> FloatArray:
    """Unit normals Nx3 after the linear map A; a missing (zero) one becomes any direction."""
    turned = normals @ np.linalg.inv(A)
    length = np.linalg.norm(turned, axis=1, keepdims=True)
    return np.where(length > 1e-9, turned / np.maximum(length, 1e-9), [0.0, 0.0, -1.0])


def _flat(values: FloatArray | ImageF32) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, np.float32).ravel()


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EngineError(
            f"Path tracing needs '{module}', which cannot be imported ({error}). "
            f"Install it with: {_INSTALL}"
        ) from error
