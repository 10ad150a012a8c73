import colorsys
import hashlib

import numpy as np
import pytest

from sgm.data.objects import CAMERA_DISTANCE, FIELD_OF_VIEW_DEG, HELD_OUT_SEED, Object, random_object, render_orbit
from sgm.data.solids import Solid

HALF_FRAME = np.tan(np.radians(FIELD_OF_VIEW_DEG / 2))
RED, GREEN, BLUE = np.eye(3, dtype=np.float32)


def solid(shape, centre=(0, 0, 0), half_sizes=(1, 1, 1), colour=RED, rotation=None, taper=1.0):
    rotation = np.eye(3) if rotation is None else rotation
    return Solid(shape, np.float32(centre), np.float32(half_sizes), np.float32(rotation), np.float32(colour), taper)


def project(point, elevation_deg, azimuth_deg, size):
    """Pixel coordinates (x, y) of a world point: a pinhole camera written out apart from the renderer's."""
    elevation, azimuth = np.radians([elevation_deg, azimuth_deg])
    x, y, z = point
    towards = np.cos(azimuth) * x + np.sin(azimuth) * y
    right = -np.sin(azimuth) * x + np.cos(azimuth) * y
    depth = CAMERA_DISTANCE - np.cos(elevation) * towards - np.sin(elevation) * z
    up = np.cos(elevation) * z - np.sin(elevation) * towards
    return (1 + np.array([right, -up]) / depth / HALF_FRAME) * size / 2


def silhouette_box(picture):
    rows, columns = np.nonzero(picture[..., 3] >= 128)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def fingerprint(obj):
    numbers = [np.concatenate([s.centre, s.half_sizes, s.rotation.ravel(), s.colour]) for s in obj.solids]
    return hashlib.sha256(np.round(np.concatenate(numbers), 3).astype("<f4").tobytes()).hexdigest()


def test_a_seed_is_an_object():
    first, again, other = (render_orbit(random_object(seed), [10], [0], 32) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5
    assert fingerprint(random_object(HELD_OUT_SEED)) != fingerprint(random_object(0))


def test_sphere_has_the_projected_radius_of_the_closed_form():
    radius, size = 0.8, 200
    picture = render_orbit(Object((solid("ellipsoid", half_sizes=[radius] * 3),)), [25], [70], size)[0]
    tangent = radius / np.sqrt(CAMERA_DISTANCE**2 - radius**2)  # of the angle between the axis and the sphere's edge
    expected = np.pi * (tangent / HALF_FRAME * size / 2) ** 2
    assert picture[..., 3].sum() / 255 == pytest.approx(expected, rel=0.003)


def test_cylinder_seen_from_above_is_its_nearer_cap():
    size, radius, height = 200, 0.5, 0.4
    upright = solid("frustum", half_sizes=(radius, radius, height))
    picture = render_orbit(Object((upright,)), [90], [0], size)[0]
    expected = np.pi * (radius / (CAMERA_DISTANCE - height) / HALF_FRAME * size / 2) ** 2
    assert picture[..., 3].sum() / 255 == pytest.approx(expected, rel=0.005)


def inside(shape, taper, points):
    """Whether points (..., 3) of the unit frame are in the unit shape, by its definition."""
    x, y, z = np.moveaxis(points, -1, 0)
    if shape == "box":
        return np.abs(points).max(axis=-1) < 1
    if shape == "ellipsoid":
        return x * x + y * y + z * z < 1
    return (np.abs(z) < 1) & (np.hypot(x, y) < 1 + (taper - 1) * (z + 1) / 2)


@pytest.mark.parametrize(
    ("shape", "taper"), [("box", 1.0), ("ellipsoid", 1.0), ("frustum", 1.0), ("frustum", 0.4), ("frustum", 0.0)]
)
def test_hits_are_where_marching_along_the_ray_first_gets_inside(shape, taper):
    rng = np.random.default_rng(0)
    part, step = solid(shape, taper=taper), 0.005
    times = np.arange(0, 2, step)
    num_hits, missed = 0, []
    for _ in range(20):
        origin = rng.standard_normal(3)
        origin *= 3 / np.linalg.norm(origin)
        directions = 1.2 * rng.standard_normal((40, 3)) - 1.5 * origin
        march = inside(shape, taper, origin + times[:, None, None] * directions)
        first = np.where(march.any(axis=0), times[march.argmax(axis=0)], np.inf)
        hits = part.hit(np.float32(origin), np.float32(directions.T))
        steps_inside = march.sum(axis=0)
        sure = (
            steps_inside >= 3
        )  # where the way through the shape is shorter, the march may have stepped over its start
        np.testing.assert_allclose(hits[sure], first[sure], atol=1.01 * step)
        missed.extend(np.isinf(hits[steps_inside == 0]))
        num_hits += int(sure.sum())
    assert num_hits > 150
    assert len(missed) > 150
    assert np.mean(missed) > 0.97  # the rest grazes an edge between two steps


@pytest.mark.parametrize("shape", ["box", "ellipsoid", "frustum"])
def test_normals_look_outwards_and_are_square_to_the_surface(shape):
    part, rng = solid(shape, taper=0.4), np.random.default_rng(1)
    origin = np.float32([2, 1.5, 1])
    directions = np.float32(0.3 * rng.standard_normal((3, 500)) - origin[:, None])
    hits = part.hit(origin, directions)
    points = (origin[:, None] + hits * directions)[:, np.isfinite(hits)]
    normals = part.normals(points)
    normals = (normals / np.linalg.norm(normals, axis=0)).T.astype(float)
    assert len(normals) > 300
    assert inside(shape, 0.4, points.T - 0.01 * normals).mean() > 0.98
    assert not inside(shape, 0.4, points.T + 0.01 * normals).any()
    sideways = np.cross(normals, rng.standard_normal(normals.shape))
    along = points.T + 0.002 * sideways / np.linalg.norm(sideways, axis=1, keepdims=True)
    assert not inside(shape, 0.4, along + 1e-4 * normals).any()
    assert inside(shape, 0.4, along - 1e-4 * normals).mean() > 0.95


@pytest.mark.parametrize(("elevation_deg", "azimuth_deg"), [(10, 30), (-10, 135), (40, 300)])
def test_turned_box_has_its_corners_where_a_pinhole_camera_puts_them(elevation_deg, azimuth_deg):
    size, angle = 200, np.radians(35)
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    half_sizes, centre = np.array([0.6, 0.3, 0.2]), np.array([0.1, -0.2, 0.15])
    box = solid("box", centre, half_sizes, rotation=rotation)
    picture = render_orbit(Object((box,)), [elevation_deg], [azimuth_deg], size)[0]
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    corners = [project(rotation @ (half_sizes * s) + centre, elevation_deg, azimuth_deg, size) for s in signs]
    expected = [*np.min(corners, axis=0), *np.max(corners, axis=0)]
    np.testing.assert_allclose(silhouette_box(picture), expected, atol=1.5)


def test_growing_azimuth_moves_the_camera_counter_clockwise_seen_from_above():
    balls = [((0.7, 0, 0), RED), ((0, 0.7, 0), GREEN), ((-0.7, 0, 0), BLUE)]
    obj = Object(tuple(solid("ellipsoid", place, [0.3] * 3, colour) for place, colour in balls))
    front = render_orbit(obj, [0] * 3, [0, 90, 180], 33)[:, 16, 16, :3]
    assert front.argmax(axis=1).tolist() == [0, 1, 2]  # +x, +y, -x in turn
    at_right = render_orbit(obj, [0], [0], 33)[0][16, 26, :3]
    assert at_right.argmax() == 1  # from +x, +y is on the right


def test_elevation_is_above_the_horizon():
    obj = Object((solid("ellipsoid", (0, 0, 0.5), [0.3] * 3, RED), solid("ellipsoid", (0, 0, -0.5), [0.3] * 3, GREEN)))
    above, below = render_orbit(obj, [90, -90], [0, 0], 33)[:, 16, 16, :3]
    assert above.argmax() == 0
    assert below.argmax() == 1


def test_a_full_turn_returns_the_same_picture():
    obj = random_object(11)
    pictures = render_orbit(obj, [12, 12, 12], [37, 397, 37 + 90], 32)
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert np.abs(pictures[0].astype(int) - pictures[2]).mean() > 5


def test_nearer_solid_hides_the_farther_one_whatever_their_order():
    near, far = solid("box", (0.6, 0, 0), [0.2] * 3, RED), solid("box", (-0.6, 0, 0), [0.2] * 3, GREEN)
    for solids in ((near, far), (far, near)):
        assert render_orbit(Object(solids), [0], [0], 33)[0, 16, 16].argmax() in (0, 3)
        assert render_orbit(Object(solids), [0], [0], 33)[0, 16, 16, 1] == 0


def test_edges_are_antialiased_with_straight_alpha():
    picture = render_orbit(Object((solid("ellipsoid", half_sizes=[0.5] * 3),)), [0], [0], 64, supersampling=4)[0]
    edge = (picture[..., 3] > 0) & (picture[..., 3] < 255)
    assert edge.sum() > 40
    assert (picture[edge][:, 1:3] == 0).all()  # pure red: no background mixed into the colour
    assert (picture[picture[..., 3] == 0] == [255, 255, 255, 0]).all()


def test_shading_follows_the_camera():
    obj = Object((solid("ellipsoid", half_sizes=[0.8] * 3),))
    first, second = render_orbit(obj, [20, 20], [0, 130], 32)
    assert np.abs(first.astype(int) - second).max() <= 1
    assert first[9, 11, 0] > first[22, 20, 0] + 40  # bright at the upper left, dark at the lower right


@pytest.mark.parametrize("first_seed", [0, HELD_OUT_SEED])
def test_random_objects_fit_the_frame_and_fill_it(first_seed):
    fills = []
    for seed in range(first_seed, first_seed + 40):
        obj = random_object(seed)
        assert 3 <= len(obj.solids) <= 6
        points = np.concatenate([part.outline() for part in obj.solids])
        assert np.linalg.norm(points, axis=1).max() == pytest.approx(1, abs=1e-5)
        for picture in render_orbit(obj, [-10, 15, 40], [0, 120, 240], 64):
            left, top, right, bottom = silhouette_box(picture)
            assert min(left, top) >= 2
            assert max(right, bottom) <= 62
            fills.append(max(right - left, bottom - top) / 64)
    assert 0.75 <= np.median(fills) <= 0.87
    assert np.quantile(fills, 0.05) > 0.6


def test_most_objects_have_strong_colours_and_views_that_differ():
    azimuths = np.arange(0, 360, 45)
    distinct, colourful = [], []
    for seed in range(30):
        pictures = render_orbit(random_object(seed), [10] * 8, azimuths, 32).astype(np.float32)
        rgb = pictures[..., :3]
        apart = np.abs(rgb[:, None] - rgb[None]).mean(axis=(2, 3, 4)) + 100 * np.eye(8)
        distinct.append(apart.min() > 2)
        inside = rgb[pictures[..., 3] == 255] / 255
        colourful.append(np.quantile([colorsys.rgb_to_hsv(*c)[1] for c in inside[::40]], 0.75) > 0.5)
    assert np.mean(distinct) > 0.8
    assert np.mean(colourful) >= 0.9
