"""The rasteriser against closed forms: where points fall, how deep the table is."""

import numpy as np
import pytest

from heatnet_ros.errors import EngineError
from heatnet_ros.geometry import camera, se3
from heatnet_ros.mesh import Mesh
from heatnet_ros.rendering.primitives import random_primitive
from heatnet_ros.rendering.rasterizer import Rasterizer
from heatnet_ros.rendering.scene import (
    FLOOR_Z_M,
    ROOM_HALF_SIZE_M,
    Placed,
    Scene,
    SceneSettings,
    build_table_scene,
    look_at,
    random_camera,
)

K = np.array([[300.0, 0, 150.3], [0, 310.0, 121.7], [0, 0, 1]])
SIZE_WH = (320, 240)


@pytest.fixture(scope="module")
def rasterizer():
    try:
        made = Rasterizer(SIZE_WH)
    except EngineError as error:
        pytest.skip(f"off-screen OpenGL cannot be had here: {error}")
    yield made
    made.release()


def empty_scene(objects: tuple[Placed, ...] = ()) -> Scene:
    grey = np.full((8, 8, 3), 120, np.uint8)
    lights = np.array([[[0, 0, 1.0], [1, 1, 1]], [[0, 1.0, 0], [0, 0, 0]]])
    return Scene(objects, (), grey, grey, 2.0, lights, np.full(3, 0.3))


def quad(half_m: float, color=(255, 0, 0)) -> Mesh:
    v = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], float) * half_m
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    colors = np.tile(np.array(color, np.uint8), (4, 1))
    return Mesh(v, faces, np.tile([0.0, 0, 1], (4, 1)), colors)


def test_depth_of_the_table_is_the_ray_plane_intersection(rasterizer):
    T_world_camera = look_at(np.array([0.4, -0.3, 0.7]), np.zeros(3), 0.2)
    image = rasterizer.render(empty_scene(), K, T_world_camera)
    pixels = np.array([[0.0, 0], [319, 0], [0, 239], [319, 239], [160, 120], [37, 201]])
    rays = camera.backproject(pixels, np.ones(len(pixels)), K) @ T_world_camera[:3, :3].T
    expected = -T_world_camera[2, 3] / rays[:, 2]
    x, y = pixels.astype(int).T
    np.testing.assert_allclose(image.depth_m[y, x], expected, rtol=2e-6)


@pytest.mark.parametrize("shift", [0.0, 0.37])
def test_a_quad_covers_the_pixels_whose_centres_it_contains(rasterizer, shift):
    T_world_camera = look_at(np.array([0.0, -1e-6, 1.0]), np.zeros(3))
    placed = Placed("quad", quad(0.1), se3.make_transform(np.eye(3), [shift * 0.01, 0.0, 0.05]))
    image = rasterizer.render(empty_scene((placed,)), K, T_world_camera)
    T_camera_object = se3.invert(T_world_camera) @ placed.T_world_object
    corners = camera.project(se3.transform(T_camera_object, placed.mesh.vertices_m), K)
    low, high = corners.min(axis=0), corners.max(axis=0)
    rows, columns = np.nonzero(image.instance_ids == 1)
    assert (columns.min(), rows.min()) == tuple(np.ceil(low).astype(int))
    assert (columns.max(), rows.max()) == tuple(np.floor(high).astype(int))
    area = (np.floor(high[0]) - np.ceil(low[0]) + 1) * (np.floor(high[1]) - np.ceil(low[1]) + 1)
    assert len(rows) == area
    np.testing.assert_allclose(image.depth_m[rows, columns], 0.95, rtol=1e-5)
    assert np.all(image.rgb[rows, columns, 0] > image.rgb[rows, columns, 1] + 50)


def test_the_nearer_object_hides_the_farther_and_count_ignores_it(rasterizer):
    T_world_camera = look_at(np.array([0.0, -1e-6, 1.0]), np.zeros(3))
    far = Placed("far", quad(0.1), se3.make_transform(np.eye(3), [0, 0, 0.05]))
    near = Placed("near", quad(0.1), se3.make_transform(np.eye(3), [0, 0, 0.10]))
    scene = empty_scene((far, near))
    image = rasterizer.render(scene, K, T_world_camera)
    assert not np.any(image.instance_ids == 1)
    T_camera_world = se3.invert(T_world_camera)
    masks = [
        rasterizer.silhouette(placed.mesh, K, T_camera_world @ placed.T_world_object)[0]
        for placed in scene.objects
    ]
    counts = [np.count_nonzero(mask) for mask in masks]
    assert counts[1] == np.count_nonzero(image.instance_ids == 2)
    assert 0.8 * counts[1] < counts[0] < counts[1]


def test_a_silhouette_goes_on_outside_the_image(rasterizer):
    # 0.1 m at 1 m with f = 300: 30 px wide, 31 px high; its middle is the image's left edge
    T = se3.make_transform(np.eye(3), [-150.3 / 300.0, 0.0, 1.0])
    mask, (x, y) = rasterizer.silhouette(quad(0.05), K, T)
    assert (x, y) == (-15, 106)
    assert np.count_nonzero(mask.any(axis=0)) == 30 and np.count_nonzero(mask.any(axis=1)) == 31
    depth = rasterizer.render_depth(quad(0.05), K, T)
    assert depth.shape == SIZE_WH[::-1]
    np.testing.assert_array_equal(depth[106:137, :15] > 0, mask[:31, 15:30])
    np.testing.assert_allclose(depth[depth > 0], 1.0, rtol=1e-6)
    assert np.count_nonzero(depth) == 31 * 15


def test_a_silhouette_may_be_larger_than_the_image(rasterizer):
    # 0.95 m at 0.25 m with f = 300: 1140 px wide and high, more than three images
    half, z = 0.475, 0.25
    T = se3.make_transform(np.eye(3), [0.0, 0.0, z])
    mask, (x, y) = rasterizer.silhouette(quad(half), K, T)
    low = camera.project(np.array([[-half, -half, z]]), K)[0]
    high = camera.project(np.array([[half, half, z]]), K)[0]
    assert (x, y) == tuple(np.floor(low).astype(int))
    expected = np.prod(np.floor(high) - np.ceil(low) + 1)
    assert np.count_nonzero(mask) == expected
    assert mask.shape[0] > 3 * SIZE_WH[1] and mask.shape[1] > 3 * SIZE_WH[0]
    touching = se3.make_transform(np.eye(3), [0.0, 0.0, 0.051])
    assert not rasterizer.silhouette(quad(half), K, touching)[0].any()


def test_the_key_light_casts_shadows(rasterizer):
    slanted = np.array([1.0, 0.0, 1.0]) / np.sqrt(2)
    grey = np.full((8, 8, 3), 120, np.uint8)
    lights = np.array([[slanted, [0.8, 0.8, 0.8]], [[0, 0, 1.0], [0, 0, 0]]])
    plate = Placed("plate", quad(0.05), se3.make_transform(np.eye(3), [0, 0, 0.1]))
    T_world_camera = look_at(np.array([0.0, -1e-6, 1.0]), np.zeros(3))
    lit, dark = (
        rasterizer.render(Scene(o, (), grey, grey, 2.0, lights, np.full(3, 0.1)), K, T_world_camera)
        for o in ((), (plate,))
    )
    # light from +x at 45 degrees: the plate 0.1 m up darkens the table 0.1 m towards -x
    x, y = (camera.project(np.array([[-0.1, 0.0, 1.0], [0.15, 0.0, 1.0]]), K)).astype(int).T
    assert np.all(dark.rgb[y[0], x[0]] < 0.6 * lit.rgb[y[0], x[0]])
    np.testing.assert_allclose(
        dark.rgb[y[1], x[1]].astype(int), lit.rgb[y[1], x[1]].astype(int), atol=12
    )


def test_a_texture_lies_as_its_coordinates_say(rasterizer):
    plain = quad(0.1)
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, 0], picture[1, 1] = (255, 0, 0), (0, 0, 255)  # top left red, bottom right blue
    uv = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    mesh = Mesh(plain.vertices_m, plain.faces, plain.normals, plain.colors, uv, picture)
    placed = Placed("card", mesh, se3.make_transform(np.eye(3), [0, 0, 0.05]), specular=0.0)
    T_world_camera = look_at(np.array([0.0, -1e-6, 1.0]), np.zeros(3))
    image = rasterizer.render(empty_scene((placed,)), K, T_world_camera)
    corners = np.array([[-0.08, 0.08, 0.95], [0.08, -0.08, 0.95]])  # world x, y; z is the depth
    x, y = camera.project(corners * [1, -1, 1], K).astype(int).T
    assert image.rgb[y[0], x[0], 0] > 100 > 30 > image.rgb[y[0], x[0], 2]
    assert image.rgb[y[1], x[1], 2] > 100 > 30 > image.rgb[y[1], x[1], 0]


def test_same_seed_same_picture_and_objects_do_not_overlap(rasterizer):
    meshes = {name: random_primitive(np.random.default_rng(i)) for i, name in enumerate("abcd")}
    settings = SceneSettings(objects=(4, 4), gap=1.0)
    pictures = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        scene = build_table_scene(meshes, rng, settings)
        pictures.append(rasterizer.render(scene, K, random_camera(rng, settings)).rgb)
    assert np.array_equal(*pictures)
    assert pictures[0].std() > 5
    standing = scene.objects + scene.distractors
    for i, a in enumerate(standing):
        assert abs(a.T_world_object[2, 3] + a.mesh.bounds_m[0, 2]) < 1e-9
        for b in standing[:i]:
            gap = np.linalg.norm(a.T_world_object[:2, 3] - b.T_world_object[:2, 3])
            assert gap > sum(np.ptp(m.mesh.bounds_m[:, :2], axis=0).max() / 2 for m in (a, b)) * 0.9


def one_metre(seed: int) -> Mesh:
    mesh = random_primitive(np.random.default_rng(seed))
    grown = mesh.vertices_m / np.linalg.norm(np.ptp(mesh.bounds_m, axis=0))
    return Mesh(grown, mesh.faces, mesh.normals, mesh.colors)


@pytest.mark.parametrize("distance_m", [(3.0, 6.0), (8.0, 9.9)])
def test_far_cameras_stand_in_the_room_and_see_the_object(rasterizer, distance_m):
    settings = SceneSettings(objects=(1, 1), spread_m=1.7, aim_m=0.7, distance_m=distance_m)
    rng, seen = np.random.default_rng(2), 0
    for i in range(30):
        scene = build_table_scene({"large": one_metre(i)}, rng, settings)
        T_world_camera = random_camera(rng, settings)
        assert np.abs(T_world_camera[:2, 3]).max() < scene.room_half_size_m
        image = rasterizer.render(scene, K, T_world_camera)
        assert np.all(image.depth_m > 0)  # closed, and nothing is beyond the far plane
        seen += bool(np.any(image.instance_ids == 1))
        for placed in scene.objects + scene.distractors:
            assert np.abs(placed.T_world_object[:2, 3]).max() < scene.table_half_size_m
    assert seen >= 28  # the others lie outside the image


def test_rooms_grow_with_the_distance_only():
    near = SceneSettings(distance_m=(0.5, 2.0))
    assert near.room_half_size_m == ROOM_HALF_SIZE_M
    scene = build_table_scene({"a": one_metre(0)}, np.random.default_rng(0), near)
    assert (scene.scale, scene.floor_z_m) == (1.0, FLOOR_Z_M)
    assert SceneSettings(distance_m=(3.0, 6.0)).room_half_size_m >= 1.2 * 6.0
    assert SceneSettings(distance_m=(3.0, 6.0), aim_m=1.0).room_half_size_m > 8.0
    assert SceneSettings(spread_m=3.0).room_half_size_m > 1.6 * 3.0


def test_look_at_is_an_optical_frame():
    eye, target = np.array([0.5, 0.2, 0.6]), np.array([0.1, 0.0, 0.1])
    T_world_camera = look_at(eye, target)
    in_camera = se3.transform(se3.invert(T_world_camera), target)
    np.testing.assert_allclose(in_camera, [0, 0, np.linalg.norm(target - eye)], atol=1e-12)
    above = se3.transform(se3.invert(T_world_camera), target + np.array([0, 0, 0.1]))
    assert above[1] < 0  # y points down
    assert np.linalg.det(T_world_camera[:3, :3]) == pytest.approx(1)
