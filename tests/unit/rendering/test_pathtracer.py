"""The path tracer against the rasteriser (where things are) and closed forms (how bright)."""

import sys

import cv2
import numpy as np
import pytest

from heatnet_ros.errors import ConfigError, EngineError
from heatnet_ros.geometry import se3
from heatnet_ros.mesh import Mesh
from heatnet_ros.rendering.pathtracer import MEAN_GREY_RANGE, WALL_TOP_M, PathTracer, develop
from heatnet_ros.rendering.primitives import random_primitive
from heatnet_ros.rendering.rasterizer import Rasterizer
from heatnet_ros.rendering.scene import (
    ROOM_HALF_SIZE_M,
    Placed,
    Scene,
    SceneSettings,
    build_table_scene,
    look_at,
    random_camera,
)

pytest.importorskip("mitsuba", reason="the extra 'pathtrace' is not installed")

# fx differs from fy and the principal point is off centre, as in real cameras
K = np.array([[150.0, 0, 70.3], [0, 156.0, 63.7], [0, 0, 1]])
SIZE_WH = (160, 120)
ABOVE = look_at(np.array([0.0, -1e-6, 1.0]), np.zeros(3))  # image up is world +y


@pytest.fixture(scope="module")
def tracer():
    return PathTracer(SIZE_WH, samples=4, denoise=False)


def room(objects=(), lights=(), ambient=(0.6, 0.5, 0.4), table_grey=188, half_m=1.0) -> Scene:
    table = np.full((4, 4, 3), table_grey, np.uint8)
    lights = np.array(lights, float).reshape(-1, 2, 3)
    return Scene(objects, (), table, np.zeros((4, 4, 3), np.uint8), half_m, lights, ambient)


def square(half_m: float, texture=None) -> Mesh:
    v = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], float)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    colors = np.full((4, 3), 255, np.uint8)
    uv = None if texture is None else (v[:, :2] + 1) / 2
    return Mesh(v * half_m, faces, np.tile([0.0, 0, 1], (4, 1)), colors, uv, texture)


def at(x: float, y: float, z: float) -> np.ndarray:
    return se3.make_transform(np.eye(3), [x, y, z])


def test_pixels_depth_and_ids_are_the_rasterisers(tracer):
    try:
        rasterizer = Rasterizer(SIZE_WH)
    except EngineError as error:
        pytest.skip(f"off-screen OpenGL cannot be had here: {error}")
    meshes = {name: random_primitive(np.random.default_rng(i)) for i, name in enumerate("abcd")}
    rng = np.random.default_rng(5)
    settings = SceneSettings(objects=(4, 4), distractors=(2, 2))
    scene = build_table_scene(meshes, rng, settings)
    T_world_camera = random_camera(rng, settings)
    with rasterizer:
        expected = rasterizer.render(scene, K, T_world_camera)
    image = tracer.render(scene, K, T_world_camera)
    assert set(np.unique(expected.instance_ids)) == {0, 1, 2, 3, 4}
    same = image.instance_ids == expected.instance_ids
    assert same.mean() > 0.999
    inside = cv2.erode((same & (expected.depth_m > 0)).astype(np.uint8), np.ones((3, 3))) > 0
    error_m = np.abs(image.depth_m - expected.depth_m)[inside]
    assert np.mean(error_m < 1e-4) > 0.995  # the rest are distractors' own edges
    # half a pixel of shift would change thousands of depths: the agreement above is subpixel
    shifted = np.abs(image.depth_m[:, 1:] - expected.depth_m[:, :-1])
    assert np.mean(shifted < 1e-4) < 0.5


def test_far_cameras_see_what_the_rasteriser_shows(tracer):
    """The room and its lamps grow with the distance: none of them comes between."""
    try:
        rasterizer = Rasterizer(SIZE_WH)
    except EngineError as error:
        pytest.skip(f"off-screen OpenGL cannot be had here: {error}")
    settings = SceneSettings(objects=(1, 1), distractors=(0, 1), distance_m=(3.0, 6.0))
    large = square(0.5)
    standing = Mesh(large.vertices_m[:, [0, 2, 1]], large.faces, large.normals, large.colors)
    rng = np.random.default_rng(1)
    with rasterizer:
        for _ in range(6):
            scene = build_table_scene({"large": standing}, rng, settings)
            T_world_camera = random_camera(rng, settings)
            expected = rasterizer.render(scene, K, T_world_camera)
            built = tracer.trace(scene, K, T_world_camera)
            same = built.instance_ids == expected.instance_ids
            assert np.any(expected.instance_ids == 1) and same.mean() > 0.998
            walls = same & (expected.instance_ids == 0) & (expected.depth_m > 0)
            near = np.abs(built.depth_m - expected.depth_m)[walls] < 1e-3
            assert near.mean() > 0.9  # the same walls; only the rasteriser has a ceiling
            assert built.radiance[expected.instance_ids == 1].mean() > 0.01


@pytest.mark.parametrize("shift_m", [0.0, 0.0037])
def test_edges_stand_where_the_projection_puts_them(tracer, shift_m):
    placed = Placed("square", square(0.1), at(shift_m, 0, 0.05))
    image = tracer.render(room((placed,)), K, ABOVE)
    scale = np.diag(K)[:2] / 0.95
    low = K[:2, 2] + scale * ([-0.1 + shift_m, -0.1])
    high = K[:2, 2] + scale * ([0.1 + shift_m, 0.1])
    rows, columns = np.nonzero(image.instance_ids == 1)
    assert (columns.min(), rows.min()) == tuple(np.ceil(low).astype(int))
    assert (columns.max(), rows.max()) == tuple(np.floor(high).astype(int))
    np.testing.assert_allclose(image.depth_m[rows, columns], 0.95, rtol=1e-5)


def test_brightness_under_the_sky_is_albedo_times_what_the_walls_leave_open():
    # black walls up to WALL_TOP_M leave a square of sky; its form factor from the middle is known
    x = ROOM_HALF_SIZE_M / WALL_TOP_M
    root = np.sqrt(1 + x * x)
    form_factor = 4 * (2 * x / root * np.arctan(x / root)) / (2 * np.pi)
    albedo = ((188 / 255 + 0.055) / 1.055) ** 2.4
    many = PathTracer((16, 12), samples=256, denoise=False)
    K_narrow = np.array([[150.0, 0, 7.5], [0, 150.0, 5.5], [0, 0, 1]])
    traced = many.trace(room(ambient=(0.6, 0.5, 0.4)), K_narrow, ABOVE)
    expected = albedo * form_factor * np.array([0.6, 0.5, 0.4])
    np.testing.assert_allclose(traced.radiance.mean(axis=(0, 1)), expected, rtol=0.01)


def test_a_lamp_gives_the_rasterisers_diffuse_light_in_the_middle():
    elevation = 1.1
    lamp = [[0, np.cos(elevation), np.sin(elevation)], [1.0, 0.8, 0.5]]
    many = PathTracer((16, 12), samples=64, denoise=False)
    K_narrow = np.array([[900.0, 0, 7.5], [0, 900.0, 5.5], [0, 0, 1]])
    traced = many.trace(room(lights=[lamp], ambient=(0, 0, 0)), K_narrow, ABOVE)
    albedo = ((188 / 255 + 0.055) / 1.055) ** 2.4
    expected = albedo * np.sin(elevation) * np.array([1.0, 0.8, 0.5])
    np.testing.assert_allclose(traced.radiance.mean(axis=(0, 1)), expected, rtol=0.05)


def test_an_object_throws_a_shadow_away_from_the_lamp(tracer):
    lamp = [[0.7, 0, 0.7], [1.0, 1.0, 1.0]]
    placed = Placed("square", square(0.08), at(0, 0, 0.08))
    traced = tracer.trace(room((placed,), [lamp], ambient=(0, 0, 0)), K, ABOVE).radiance
    u, v = K[:2, 2].round().astype(int)
    offset = round(0.11 * K[0, 0])  # beside the square, and under it as the lamp sees it
    strips = traced[v - 3 : v + 4, [u - offset, u + offset]].mean(axis=(0, 2))
    assert strips[0] < 0.2 * strips[1]


def test_textures_stand_upright(tracer):
    texture = np.zeros((8, 8, 3), np.uint8)
    texture[:4, :, 0], texture[4:, :4, 1], texture[4:, 4:, 2] = 255, 255, 255
    placed = Placed("square", square(0.1, texture), at(0, 0, 0.01), specular=0.0)
    image = tracer.trace(room((placed,)), K, ABOVE).radiance
    u, v = K[:2, 2].round().astype(int)
    assert image[v - 8, u].argmax() == 0  # row 0 of the texture, v = 1, is up: world +y
    assert image[v + 8, u - 8].argmax() == 1
    assert image[v + 8, u + 8].argmax() == 2


def test_gain_scales_the_colours(tracer):
    light = Placed("square", square(0.1), at(0, 0, 0.01), np.array([1.0, 0.5, 0.25]), specular=0.0)
    image = tracer.trace(room((light,), ambient=(1, 1, 1)), K, ABOVE).radiance
    u, v = K[:2, 2].round().astype(int)
    red, green, blue = image[v - 5 : v + 5, u - 5 : u + 5].mean(axis=(0, 1))
    assert green / red == pytest.approx(((0.5 + 0.055) / 1.055) ** 2.4, rel=0.05)
    assert blue / red == pytest.approx(((0.25 + 0.055) / 1.055) ** 2.4, rel=0.08)


def test_the_same_scene_and_seed_give_the_same_picture(tracer):
    placed = Placed("square", square(0.1), at(0, 0, 0.05))
    scene = room((placed,), [[[0, 0.6, 0.8], [1.0, 0.8, 0.5]]])
    first, again, other = (tracer.render(scene, K, ABOVE, seed).rgb for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_triangles_without_area_or_normals_leave_no_holes(tracer):
    sound = square(0.1)
    faces = np.vstack([sound.faces, [[0, 0, 1], [2, 2, 2]]]).astype(np.int32)
    broken = Mesh(sound.vertices_m, faces, 0 * sound.normals, sound.colors)
    images = [
        tracer.trace(room((Placed("square", mesh, at(0, 0, 0.05)),)), K, ABOVE)
        for mesh in (sound, broken)
    ]
    assert np.all(np.isfinite(images[1].radiance))
    assert np.array_equal(images[0].instance_ids, images[1].instance_ids)
    means = [image.radiance[image.instance_ids == 1].mean() for image in images]
    assert means[1] == pytest.approx(means[0], rel=0.1)


def test_denoising_halves_the_error_at_least():
    pytest.importorskip("mitsuba_oidn", reason="the extra 'pathtrace' is not installed")
    scene = room((Placed("square", square(0.1), at(0, 0, 0.05)),), [[[0, 0.6, 0.8], [1, 1, 1]]])
    K_half, size_wh = np.diag([0.5, 0.5, 1]) @ K, (80, 60)
    truth = PathTracer(size_wh, 128, denoise=False).trace(scene, K_half, ABOVE).radiance
    errors = [
        np.abs(PathTracer(size_wh, 4, denoise=on).trace(scene, K_half, ABOVE).radiance - truth)
        for on in (False, True)
    ]
    assert errors[1].mean() < errors[0].mean() / 2


def test_develop_sets_the_mean_whatever_the_light():
    radiance = np.random.default_rng(0).uniform(0, 1, (40, 40, 3)).astype(np.float32)
    dim, bright = (develop(radiance * f, np.random.default_rng(1)) for f in (0.01, 100))
    assert np.abs(dim.astype(int) - bright).max() <= 1
    low, high = MEAN_GREY_RANGE
    means = [develop(radiance**4, np.random.default_rng(i)).mean() for i in range(8)]
    assert low - 2 < min(means) < max(means) < high + 2 and np.ptp(means) > 20


def test_wrong_options_and_missing_packages_say_what_to_do(monkeypatch):
    with pytest.raises(ConfigError, match="unknown variant 'gpu'"):
        PathTracer(SIZE_WH, variant="gpu")
    with pytest.raises(ConfigError, match="samples >= 1"):
        PathTracer(SIZE_WH, samples=0)
    monkeypatch.setitem(sys.modules, "mitsuba", None)
    with pytest.raises(EngineError, match=r"heatnet_ros\[pathtrace\]"):
        PathTracer(SIZE_WH)
