from pathlib import Path

import numpy as np
import pytest

from heatnet_ros.errors import ConfigError
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import project
from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.rendering.orbit import Film, orbit_camera

ROOT = Path(__file__).resolve().parents[3]
SIZE_WH = (320, 240)
K = np.array([[307.0, 0, 160.0], [0, 307.0, 120.0], [0, 0, 1]])


@pytest.fixture(scope="module")
def library():
    return load_objects(ROOT / "config" / "objects" / "demo.yaml")


def test_camera_stays_between_25_and_65_degrees_and_moves_smoothly():
    poses = np.stack([orbit_camera(t) for t in np.arange(0, 60, 0.1)])
    forward = poses[:, :3, 2]
    elevation_deg = np.degrees(np.arcsin(-forward[:, 2]))
    assert elevation_deg.min() == pytest.approx(25, abs=1)
    assert elevation_deg.max() == pytest.approx(65, abs=1)
    assert np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).max() < 0.025


def test_frames_depend_on_seed_and_index_alone(library):
    with Film(library, SIZE_WH, K, seed=3) as film:
        film.render(0)
        second = film.render(1)
    with Film(library, SIZE_WH, K, seed=3) as film:
        again = film.render(1)
    with Film(library, SIZE_WH, K, seed=4) as film:
        other = film.render(1)
    np.testing.assert_array_equal(second.rgb, again.rgb)
    np.testing.assert_array_equal(second.depth_m, again.depth_m)
    assert second.poses_true.keys() == again.poses_true.keys()
    assert np.any(second.rgb != other.rgb)


def test_every_object_gets_its_turn(library):
    with Film(library, SIZE_WH, K, frames_per_scene=2, objects_per_scene=3) as film:
        seen = set().union(*(film.render(2 * scene).poses_true for scene in range(5)))
    assert seen == set(library.objects)


def test_truth_fits_the_depth_image(library):
    with Film(library, SIZE_WH, K, noise=False) as film:
        frame = film.render(5)
    assert frame.poses_true
    for name, T in frame.poses_true.items():
        surface = library[name].surface
        points = se3.transform(T, surface[:, :3])
        facing = np.sum((surface[:, 3:] @ T[:3, :3].T) * points, axis=1) < 0
        pixels = np.rint(project(points, K)).astype(int)
        use = facing & ((pixels >= 0) & (pixels < frame.depth_m.shape[::-1])).all(axis=1)
        measured = frame.depth_m[pixels[use, 1], pixels[use, 0]]
        assert abs(np.median(measured - points[use, 2])) < 0.002


def test_what_is_hidden_or_outside_has_no_truth(library):
    far_right = K.copy()
    far_right[0, 2] = -400.0  # everything lies to the left of the image
    with Film(library, SIZE_WH, far_right) as film:
        assert film.render(0).poses_true == {}


def test_noise_makes_holes_and_changes_colours(library):
    with Film(library, SIZE_WH, K, noise=False) as film:
        clean = film.render(0)
    with Film(library, SIZE_WH, K) as film:
        noisy = film.render(0)
    assert np.mean(noisy.depth_m == 0) > np.mean(clean.depth_m == 0)
    assert np.any(clean.rgb != noisy.rgb)


def test_missing_mesh_names_object_and_remedy(library):
    import dataclasses

    broken = dataclasses.replace(library["mug"], mesh_path=Path("nowhere/mug.ply"))
    objects = dict(library.objects) | {"mug": broken}
    with pytest.raises(ConfigError, match=r"'mug'.*nowhere/mug.ply.*Put it there"):
        Film(ObjectLibrary("demo", objects, library.path), SIZE_WH, K)


def test_another_camera_may_film_and_stand_still(library):
    still = orbit_camera(4.0)
    with Film(library, SIZE_WH, K, seed=3, noise=False, camera=lambda _: still) as film:
        first, later = film.render(0), film.render(7)
    np.testing.assert_array_equal(first.rgb, later.rgb)
    with Film(library, SIZE_WH, K, seed=3, noise=False, rate_hz=10.0) as film:
        orbit = film.render(0)
    assert np.any(orbit.rgb != first.rgb)
