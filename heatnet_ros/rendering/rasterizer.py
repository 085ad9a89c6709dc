"""OpenGL rasteriser on EGL: off screen, on a GPU where there is one, else on the CPU (llvmpipe)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import EngineError
from heatnet_ros.geometry import se3
from heatnet_ros.mesh import Mesh
from heatnet_ros.rendering.scene import Placed, Scene
from heatnet_ros.rendering.shaders import DEPTH_FRAGMENT, DEPTH_VERTEX, FRAGMENT, VERTEX
from heatnet_ros.rendering.shadows import (
    CONTACT_HALF_M,
    SHADOW_PX,
    contact_shadow,
    light_projection,
)
from heatnet_ros.types import DepthF32, FloatArray, ImageU8

NEAR_M, FAR_M = 0.05, 20.0
LARGEST_SILHOUETTE = 64  # in images: larger ones are of things that touch the camera

_LAYOUT = ("3f 3f 3f 2f", "in_position", "in_normal", "in_color", "in_uv")
_IMAGE_UNIT, _CONTACT_UNIT, _SHADOW_UNIT = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Rendering:
    """rgb HxWx3 uint8; depth_m HxW float32 along z; instance_ids HxW int32.

    instance_ids is 0 where no known object is, i + 1 where ``scene.objects[i]`` is.
    """

    rgb: ImageU8
    depth_m: DepthF32
    instance_ids: NDArray[np.int32]


class Rasterizer:
    """Draws scenes at a fixed size. Use as a context manager or call ``release``.

    Raises EngineError when there is no EGL.
    """

    def __init__(self, size_wh: tuple[int, int]) -> None:
        try:
            import moderngl as gl
        except ImportError as error:
            raise EngineError(
                "Rendering needs moderngl: pip install 'heatnet_ros[render]'."
            ) from error
        moderngl: Any = gl  # its stubs know neither backends nor program uniforms
        try:
            self._gl = moderngl.create_context(standalone=True, backend="egl")
        except Exception as error:  # moderngl raises bare Exception
            raise EngineError(
                f"No off-screen OpenGL: {error}. Install it: apt install libegl1 libgl1-mesa-dri."
            ) from error
        self.size_wh = size_wh
        self._gl.enable(moderngl.DEPTH_TEST)
        self._program = self._gl.program(vertex_shader=VERTEX, fragment_shader=FRAGMENT)
        self._depth_program = self._gl.program(
            vertex_shader=DEPTH_VERTEX, fragment_shader=DEPTH_FRAGMENT
        )
        self._color = self._gl.renderbuffer(size_wh, 3, dtype="f1")
        self._depth_id = self._gl.renderbuffer(size_wh, 2, dtype="f4")
        self._target = self._gl.framebuffer(
            [self._color, self._depth_id], self._gl.depth_renderbuffer(size_wh)
        )
        self._depth_target = self._gl.framebuffer(
            [self._gl.renderbuffer(size_wh, 1, dtype="f4")], self._gl.depth_renderbuffer(size_wh)
        )
        self._shadow_map = self._gl.depth_texture((SHADOW_PX, SHADOW_PX))
        self._shadow_map.compare_func = "<="
        self._shadow_map.repeat_x = self._shadow_map.repeat_y = False
        self._shadow_target = self._gl.framebuffer(depth_attachment=self._shadow_map)
        self._meshes: dict[int, tuple[Mesh, Any, Any]] = {}
        self._textures: dict[int, tuple[ImageU8, Any]] = {}
        self._lit_scene: Scene | None = None
        self._contact: Any = None

    def __enter__(self) -> Rasterizer:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Free everything on the GPU."""
        self._gl.release()

    def render(self, scene: Scene, K: FloatArray, T_world_camera: FloatArray) -> Rendering:
        """Draw the scene as a pinhole camera with K (3x3) at ``T_world_camera`` sees it."""
        self._light(scene)
        self._target.use()
        self._gl.clear(0.0, 0.0, 0.0)
        T_camera_world = se3.invert(T_world_camera)
        self._write("T_camera_world", T_camera_world.T)
        clip = _clip_matrix(K, (0, 0), self.size_wh, far_of(scene))
        self._write("T_clip_world", (clip @ T_camera_world).T)
        self._write("eye", T_world_camera[:3, 3])
        # near things first: what they hide is then never shaded
        numbered = [(placed, i + 1) for i, placed in enumerate(scene.objects)]
        numbered += [(placed, 0) for placed in scene.distractors]
        numbered.sort(key=lambda item: _distance(item[0], T_world_camera))
        for placed, instance_id in numbered:
            self._draw(placed, instance_id)
        self._draw_room(scene)
        return self._read()

    def render_depth(self, mesh: Mesh, K: FloatArray, T_camera_object: FloatArray) -> DepthF32:
        """HxW float32: the mesh's depth along z in metres, 0 where it is not; nothing else."""
        return self._depth_of(mesh, K, T_camera_object, (0, 0), self.size_wh)

    def silhouette(
        self, mesh: Mesh, K: FloatArray, T_camera_object: FloatArray
    ) -> tuple[NDArray[np.bool_], tuple[int, int]]:
        """The mesh's whole mask, also of what lies outside the image, and its corner's (x, y).

        Empty where the mesh reaches behind the camera, or so near to it that the mask would be 64
        images large.
        """
        p = se3.transform(T_camera_object, mesh.vertices_m)
        if p[:, 2].min() <= NEAR_M:
            return np.zeros((1, 1), np.bool_), (0, 0)
        px = p[:, :2] / p[:, 2:] * np.diag(K)[:2] + K[:2, 2]
        low, high = np.floor(px.min(axis=0)).astype(int), np.ceil(px.max(axis=0)).astype(int)
        x0, y0, w, h = (int(v) for v in (*low, *(high - low + 1)))
        width, height = self.size_wh
        if w * h > LARGEST_SILHOUETTE * width * height:
            return np.zeros((1, 1), np.bool_), (0, 0)
        mask = np.empty((h, w), np.bool_)
        for y in range(0, h, height):  # in tiles: what is drawn on has the image's size
            for x in range(0, w, width):
                size = (min(width, w - x), min(height, h - y))
                depth_m = self._depth_of(mesh, K, T_camera_object, (x0 + x, y0 + y), size)
                mask[y : y + size[1], x : x + size[0]] = depth_m > 0
        return mask, (x0, y0)

    def _depth_of(
        self,
        mesh: Mesh,
        K: FloatArray,
        T_camera_object: FloatArray,
        corner_xy: tuple[int, int],
        size_wh: tuple[int, int],
    ) -> DepthF32:
        width, height = size_wh
        self._depth_target.use()
        self._depth_target.viewport = self._depth_target.scissor = (0, 0, width, height)
        self._gl.clear(0.0, 0.0, 0.0)
        clip = _clip_matrix(K, corner_xy, size_wh) @ T_camera_object
        self._depth_program["T_clip_object"].write(clip.T.astype("f4").tobytes())
        self._depth_program["z_row"].write(T_camera_object[2].astype("f4").tobytes())
        self._arrays(mesh)[1].render()
        data = self._depth_target.read(
            viewport=(0, 0, width, height), components=1, dtype="f4", alignment=1
        )
        return np.frombuffer(data, np.float32).reshape(height, width)

    def _light(self, scene: Scene) -> None:
        """Lights and shadows; they do not depend on the camera, so once for each scene."""
        if scene is self._lit_scene:
            return
        self._lit_scene = scene
        self._write("light_direction", scene.lights[:, 0])
        self._write("light_color", scene.lights[:, 1])
        self._write("ambient", scene.ambient)
        standing = scene.objects + scene.distractors
        if self._contact is not None:
            self._contact.release()
        contact_half_m = CONTACT_HALF_M * scene.scale
        contact = contact_shadow(standing, contact_half_m)
        self._contact = self._gl.texture(contact.shape[::-1], 1, contact.tobytes(), alignment=1)
        self._contact.repeat_x = self._contact.repeat_y = False
        self._contact.use(_CONTACT_UNIT)
        self._program["contact"] = _CONTACT_UNIT
        self._program["contact_half_m"] = contact_half_m
        T_light_world = light_projection(scene.lights[0, 0], scene.scale)
        self._shadow_target.use()
        self._shadow_target.clear(depth=1.0)
        self._depth_program["z_row"].write(np.zeros(4, "f4").tobytes())
        for placed in standing:
            clip = T_light_world @ placed.T_world_object
            self._depth_program["T_clip_object"].write(clip.T.astype("f4").tobytes())
            self._arrays(placed.mesh)[1].render()
        self._write("T_light_world", T_light_world.T)
        self._shadow_map.use(_SHADOW_UNIT)
        self._program["shadow"] = _SHADOW_UNIT

    def _write(self, name: str, values: NDArray[Any]) -> None:
        self._program[name].write(np.ascontiguousarray(values, np.float32).tobytes())

    def _draw(self, placed: Placed, instance_id: int) -> None:
        self._write("T_world_object", placed.T_world_object.T)
        self._write("gain", placed.gain)
        self._program["gloss"] = (placed.specular, placed.shininess)
        self._program["id"] = float(instance_id)
        texture = placed.mesh.texture if placed.mesh.uv is not None else None
        self._program["textured"] = float(texture is not None)
        self._program["table"] = 0.0
        if texture is not None:
            self._texture(texture).use(_IMAGE_UNIT)
        self._arrays(placed.mesh)[0].render()

    def _draw_room(self, scene: Scene) -> None:
        self._write("T_world_object", np.eye(4))
        self._write("gain", np.ones(3))
        self._program["gloss"] = (0.0, 1.0)
        self._program["id"] = 0.0
        self._program["textured"] = 1.0
        table = _table(scene.table_half_size_m)
        room = _quads(scene.room_half_size_m, scene.floor_z_m)
        for texture, quads in ((scene.table_texture, table), (scene.room_texture, room)):
            self._program["table"] = float(quads is table)
            self._texture(texture).use(_IMAGE_UNIT)
            buffer = self._gl.buffer(quads.astype(np.float32).tobytes())
            array = self._gl.vertex_array(self._program, [(buffer, *_LAYOUT)])
            array.render()
            array.release()
            buffer.release()

    def _texture(self, texture: ImageU8) -> Any:
        if len(self._textures) > 48:
            for _, old in self._textures.values():
                old.release()
            self._textures.clear()
        if id(texture) not in self._textures:
            pixels = np.ascontiguousarray(texture[::-1])  # OpenGL's first row is the lowest
            image = self._gl.texture(texture.shape[1::-1], 3, pixels.tobytes(), alignment=1)
            image.build_mipmaps()
            self._textures[id(texture)] = (texture, image)
        return self._textures[id(texture)][1]

    def _arrays(self, mesh: Mesh) -> tuple[Any, Any]:
        """Vertex arrays of a mesh for the shading and for the depth program."""
        # primitives are made anew for each scene: keep the cache from growing without bound
        if len(self._meshes) > 64:
            for _, array, depth_array in self._meshes.values():
                array.release()
                depth_array.release()
            self._meshes.clear()
        if id(mesh) not in self._meshes:
            uv = np.zeros((len(mesh.vertices_m), 2)) if mesh.uv is None else mesh.uv
            rows = np.hstack([mesh.vertices_m, mesh.normals, mesh.colors / 255.0, uv])
            buffer = self._gl.buffer(rows.astype(np.float32).tobytes())
            places = self._gl.buffer(mesh.vertices_m.astype(np.float32).tobytes())
            index = self._gl.buffer(mesh.faces.astype(np.int32).tobytes())
            array = self._gl.vertex_array(self._program, [(buffer, *_LAYOUT)], index)
            depth_array = self._gl.vertex_array(
                self._depth_program, [(places, "3f", "in_position")], index
            )
            self._meshes[id(mesh)] = (mesh, array, depth_array)
        return self._meshes[id(mesh)][1:]

    def _read(self) -> Rendering:
        width, height = self.size_wh
        color = self._target.read(components=3, attachment=0, alignment=1)
        rgb = np.frombuffer(color, np.uint8).reshape(height, width, 3)
        data = self._target.read(components=2, attachment=1, dtype="f4")
        floats = np.frombuffer(data, np.float32).reshape(height, width, 2)
        return Rendering(rgb, floats[..., 0].copy(), np.rint(floats[..., 1]).astype(np.int32))


def _distance(placed: Placed, T_world_camera: FloatArray) -> float:
    return float(np.linalg.norm(placed.T_world_object[:3, 3] - T_world_camera[:3, 3]))


def far_of(scene: Scene) -> float:
    """How far a camera in the scene's room sees: into the opposite corner at least."""
    return max(FAR_M, 3.5 * scene.room_half_size_m)


def _clip_matrix(
    K: FloatArray, corner_xy: tuple[int, int], size_wh: tuple[int, int], far_m: float = FAR_M
) -> FloatArray:
    """OpenGL's projection (4x4) for a window of ``size_wh`` whose first pixel is ``corner_xy``."""
    (width, height), (x0, y0) = size_wh, corner_xy
    clip = np.zeros((4, 4))
    # + 1: pixel (0, 0) is the centre of the top-left pixel, OpenGL's edge is at 0
    clip[0, 0], clip[0, 2] = 2 * K[0, 0] / width, (2 * (K[0, 2] - x0) + 1) / width - 1
    # OpenGL's rows go up; reading upwards from row 0 gives the image the right way round
    clip[1, 1], clip[1, 2] = 2 * K[1, 1] / height, (2 * (K[1, 2] - y0) + 1) / height - 1
    clip[2, 2] = (far_m + NEAR_M) / (far_m - NEAR_M)
    clip[2, 3] = -2 * far_m * NEAR_M / (far_m - NEAR_M)
    clip[3, 2] = 1.0
    return clip


def _table(half: float) -> FloatArray:
    return _quad(np.array([0.0, 0, 0]), np.array([half, 0, 0]), np.array([0, half, 0]), half / 0.45)


def _quads(half: float, floor_z: float) -> FloatArray:
    """The floor, four walls and the ceiling."""
    x, y, z = np.eye(3) * half
    middle = np.array([0, 0, floor_z + half])
    sides = [(-z, x, y), (z, x, y), (x, y, z), (-x, y, z), (y, x, z), (-y, x, z)]
    return np.concatenate([_quad(middle + offset, u, v, 3.0) for offset, u, v in sides])


def _quad(middle: FloatArray, u: FloatArray, v: FloatArray, repeat: float) -> FloatArray:
    """6x11: two triangles with position, normal, white and texture coordinates."""
    normal = np.cross(u, v) / np.linalg.norm(np.cross(u, v))
    signs = [(-1, -1), (1, -1), (1, 1), (-1, -1), (1, 1), (-1, 1)]
    rows = [
        np.concatenate(
            [middle + a * u + b * v, normal, np.ones(3),
             [(a + 1) * repeat / 2, (b + 1) * repeat / 2]]
        )
        for a, b in signs
    ]  # fmt: skip
    return np.array(rows)
