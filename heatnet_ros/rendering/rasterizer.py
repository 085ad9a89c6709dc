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
from heatnet_ros.types import DepthF32, FloatArray, ImageU8

NEAR_M, FAR_M = 0.05, 20.0
ROOM_HALF_SIZE_M = 2.5
FLOOR_Z_M = -0.75

_VERTEX = """
#version 330
uniform mat4 T_clip_world; uniform mat4 T_camera_world; uniform mat4 T_world_object;
in vec3 in_position; in vec3 in_normal; in vec3 in_color;
out vec3 world; out vec3 normal; out vec3 color; out float depth;
void main() {
  vec4 p = T_world_object * vec4(in_position, 1.0);
  world = p.xyz; normal = mat3(T_world_object) * in_normal; color = in_color;
  depth = (T_camera_world * p).z;
  gl_Position = T_clip_world * p;
}"""

_FRAGMENT = """
#version 330
uniform vec3 eye; uniform vec3 light_direction[2]; uniform vec3 light_color[2];
uniform vec3 ambient; uniform vec3 gain; uniform vec2 gloss; uniform float id;
uniform sampler2D image; uniform float textured; uniform vec3 footprint[24]; uniform int footprints;
in vec3 world; in vec3 normal; in vec3 color; in float depth;
layout(location = 0) out vec4 out_color; layout(location = 1) out vec2 out_depth_id;
void main() {
  vec3 view = normalize(eye - world);
  vec3 n = normalize(normal); if (dot(n, view) < 0.0) n = -n;
  // for textured surfaces in_color holds texture coordinates
  vec3 albedo = textured > 0.5 ? texture(image, color.xy).rgb : pow(color * gain, vec3(2.2));
  if (textured > 0.5) albedo = pow(albedo, vec3(2.2));
  float occlusion = 1.0;
  for (int i = 0; i < footprints; ++i) {
    float d = length(world.xy - footprint[i].xy) / footprint[i].z;
    occlusion *= 1.0 - 0.55 * textured * exp(-d * d * 1.2) * step(abs(world.z), 0.002);
  }
  vec3 sum = ambient * (0.75 + 0.25 * n.z) * albedo;
  for (int i = 0; i < 2; ++i) {
    vec3 h = normalize(light_direction[i] + view);
    sum += light_color[i] * albedo * max(dot(n, light_direction[i]), 0.0);
    sum += light_color[i] * gloss.x * pow(max(dot(n, h), 0.0), gloss.y);
  }
  out_color = vec4(pow(clamp(sum * occlusion, 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
  out_depth_id = vec2(depth, id);
}"""


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
        self._program = self._gl.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
        self._color = self._gl.renderbuffer(size_wh, 3, dtype="f1")
        self._depth_id = self._gl.renderbuffer(size_wh, 2, dtype="f4")
        self._target = self._gl.framebuffer(
            [self._color, self._depth_id], self._gl.depth_renderbuffer(size_wh)
        )
        self._meshes: dict[int, tuple[Mesh, Any]] = {}
        self._textures: dict[int, tuple[ImageU8, Any]] = {}

    def __enter__(self) -> Rasterizer:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Free everything on the GPU."""
        self._gl.release()

    def render(self, scene: Scene, K: FloatArray, T_world_camera: FloatArray) -> Rendering:
        """Draw the scene as a pinhole camera with K (3x3) at ``T_world_camera`` sees it."""
        self._target.use()
        self._gl.clear(0.0, 0.0, 0.0)
        self._set_camera(K, T_world_camera)
        self._set_lights(scene, T_world_camera)
        self._draw_room(scene)
        for placed in scene.distractors:
            self._draw(placed, 0)
        for i, placed in enumerate(scene.objects):
            self._draw(placed, i + 1)
        return self._read()

    def count_pixels(
        self, scene: Scene, K: FloatArray, T_world_camera: FloatArray
    ) -> NDArray[np.int64]:
        """Pixels each of ``scene.objects`` would cover if nothing stood before it."""
        self._target.use()
        self._set_camera(K, T_world_camera)
        counts = []
        for placed in scene.objects:
            self._gl.clear(0.0, 0.0, 0.0)
            self._draw(placed, 1)
            counts.append(int(np.count_nonzero(self._read_floats()[..., 1])))
        return np.array(counts, dtype=np.int64)

    def _set_camera(self, K: FloatArray, T_world_camera: FloatArray) -> None:
        width, height = self.size_wh
        clip = np.zeros((4, 4))
        # + 1: pixel (0, 0) is the centre of the top-left pixel, OpenGL's edge is at 0
        clip[0, 0], clip[0, 2] = 2 * K[0, 0] / width, (2 * K[0, 2] + 1) / width - 1
        # OpenGL's rows go up; reading upwards from row 0 gives the image the right way round
        clip[1, 1], clip[1, 2] = 2 * K[1, 1] / height, (2 * K[1, 2] + 1) / height - 1
        clip[2, 2] = (FAR_M + NEAR_M) / (FAR_M - NEAR_M)
        clip[2, 3] = -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)
        clip[3, 2] = 1.0
        T_camera_world = se3.invert(T_world_camera)
        self._write("T_camera_world", T_camera_world.T)
        self._write("T_clip_world", (clip @ T_camera_world).T)

    def _set_lights(self, scene: Scene, T_world_camera: FloatArray) -> None:
        self._write("eye", T_world_camera[:3, 3])
        self._write("light_direction", scene.lights[:, 0])
        self._write("light_color", scene.lights[:, 1])
        self._write("ambient", scene.ambient)
        prints = np.zeros((24, 3), np.float32)
        standing = (scene.objects + scene.distractors)[:24]
        for i, placed in enumerate(standing):
            low, high = placed.mesh.bounds_m
            prints[i, :2] = placed.T_world_object[:2, 3]
            prints[i, 2] = np.linalg.norm((high - low)[:2]) / 2
        self._write("footprint", prints)
        self._program["footprints"] = len(standing)

    def _write(self, name: str, values: NDArray[Any]) -> None:
        self._program[name].write(np.ascontiguousarray(values, np.float32).tobytes())

    def _draw(self, placed: Placed, instance_id: int) -> None:
        self._write("T_world_object", placed.T_world_object.T)
        self._write("gain", placed.gain)
        self._program["gloss"] = (placed.specular, placed.shininess)
        self._program["id"] = float(instance_id)
        self._program["textured"] = 0.0
        self._vertex_array(placed.mesh).render()

    def _draw_room(self, scene: Scene) -> None:
        self._write("T_world_object", np.eye(4))
        self._program["gloss"] = (0.0, 1.0)
        self._program["id"] = 0.0
        self._program["textured"] = 1.0
        half = scene.table_half_size_m
        room = _quads(ROOM_HALF_SIZE_M, FLOOR_Z_M)
        for texture, quads in ((scene.room_texture, room), (scene.table_texture, _table(half))):
            self._texture(texture).use(0)
            buffer = self._gl.buffer(quads.astype(np.float32).tobytes())
            layout = [(buffer, "3f 3f 3f", "in_position", "in_normal", "in_color")]
            array = self._gl.vertex_array(self._program, layout)
            array.render()
            array.release()
            buffer.release()

    def _texture(self, texture: ImageU8) -> Any:
        if len(self._textures) > 8:
            for _, old in self._textures.values():
                old.release()
            self._textures.clear()
        if id(texture) not in self._textures:
            image = self._gl.texture(texture.shape[1::-1], 3, texture.tobytes(), alignment=1)
            image.build_mipmaps()
            self._textures[id(texture)] = (texture, image)
        return self._textures[id(texture)][1]

    def _vertex_array(self, mesh: Mesh) -> Any:
        # primitives are made anew for each scene: keep the cache from growing without bound
        if len(self._meshes) > 64:
            for _, array in self._meshes.values():
                array.release()
            self._meshes.clear()
        if id(mesh) not in self._meshes:
            vertices = np.hstack([mesh.vertices_m, mesh.normals, mesh.colors / 255.0])
            buffer = self._gl.buffer(vertices.astype(np.float32).tobytes())
            index = self._gl.buffer(mesh.faces.astype(np.int32).tobytes())
            layout = [(buffer, "3f 3f 3f", "in_position", "in_normal", "in_color")]
            array = self._gl.vertex_array(self._program, layout, index)
            self._meshes[id(mesh)] = (mesh, array)
        return self._meshes[id(mesh)][1]

    def _read_floats(self) -> NDArray[np.float32]:
        width, height = self.size_wh
        data = self._target.read(components=2, attachment=1, dtype="f4")
        return np.frombuffer(data, np.float32).reshape(height, width, 2)

    def _read(self) -> Rendering:
        width, height = self.size_wh
        color = self._target.read(components=3, attachment=0, alignment=1)
        rgb = np.frombuffer(color, np.uint8).reshape(height, width, 3)
        floats = self._read_floats()
        return Rendering(rgb, floats[..., 0].copy(), np.rint(floats[..., 1]).astype(np.int32))


def _table(half: float) -> FloatArray:
    return _quad(np.array([0.0, 0, 0]), np.array([half, 0, 0]), np.array([0, half, 0]), 1.0)


def _quads(half: float, floor_z: float) -> FloatArray:
    """The floor, four walls and the ceiling."""
    x, y, z = np.eye(3) * half
    middle = np.array([0, 0, floor_z + half])
    sides = [(-z, x, y), (z, x, y), (x, y, z), (-x, y, z), (y, x, z), (-y, x, z)]
    return np.concatenate([_quad(middle + offset, u, v, 3.0) for offset, u, v in sides])


def _quad(middle: FloatArray, u: FloatArray, v: FloatArray, repeat: float) -> FloatArray:
    """6x9: two triangles with position, normal and texture coordinates (in the colour's place)."""
    normal = np.cross(u, v) / np.linalg.norm(np.cross(u, v))
    signs = [(-1, -1), (1, -1), (1, 1), (-1, -1), (1, 1), (-1, 1)]
    rows = [
        np.concatenate(
            [middle + a * u + b * v, normal, [(a + 1) * repeat / 2, (b + 1) * repeat / 2, 0]]
        )
        for a, b in signs
    ]
    return np.array(rows)
