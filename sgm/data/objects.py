"""Random toy-like objects made of coloured solids, and their pictures from a camera on an orbit.

World axes: z is up; the object stands at the origin inside the unit sphere. The camera looks at the origin from
`CAMERA_DISTANCE`; an increasing azimuth moves it counter-clockwise as seen from above, azimuth 0 is on the +x axis,
and the elevation is the angle above the horizon. Object seeds from `HELD_OUT_SEED` on are never trained on.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .solids import Array, Shape, Solid

Triple = tuple[float, float, float]

HELD_OUT_SEED = 1_000_000_000
FIELD_OF_VIEW_DEG = 33.8  # vertical and horizontal, as in SV3D's renders
FRAME_FILL = 0.9  # diameter of the unit sphere's picture in frame widths: most objects then fill 75 to 85 %
CAMERA_DISTANCE = float((1 + (FRAME_FILL * np.tan(np.radians(FIELD_OF_VIEW_DEG / 2))) ** -2) ** 0.5)

# The light is attached to the camera, over its left shoulder, with a little more light on what faces the sky. A lamp
# fixed in the world would make the brightness of an unseen side depend on where the lamp is, which one picture hardly
# shows; this way an orbit is a turntable in a photographer's studio: shading depends only on shape and viewing angle.
LIGHT = np.array([-0.45, 0.55, 0.70], np.float32) / np.float32(np.sqrt(0.45**2 + 0.55**2 + 0.70**2))  # right, up, back
AMBIENT, DIFFUSE, SKY = 0.48, 0.44, 0.08  # together at most 1


@dataclass(frozen=True, eq=False)
class Object:
    """A few solids that together fit into the unit sphere."""

    solids: tuple[Solid, ...]


def random_object(seed: int) -> Object:
    """The object of a seed: a car, house, robot, rocket, boat or creature of 3 to 6 solids, filling the unit sphere.

    The same seed gives the same object on every platform (PCG64). Seeds below `HELD_OUT_SEED` are for training.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    build = ASSEMBLIES[int(rng.integers(len(ASSEMBLIES)))]
    return _centred(build(_Kit(rng)), _rotation(yaw_deg=rng.uniform(0, 360)))


def object_kind(seed: int) -> str:
    """What the object of a seed is, in a word."""
    return ASSEMBLIES[int(np.random.Generator(np.random.PCG64(seed)).integers(len(ASSEMBLIES)))].__name__.strip("_")


def render_orbit(
    obj: Object, elevations_deg: Sequence[float], azimuths_deg: Sequence[float], size: int, supersampling: int = 2
) -> NDArray[np.uint8]:
    """Pictures (T, size, size, 4) of the object, RGBA with straight alpha, from each of T elevations and azimuths.

    Each pixel averages `supersampling`^2 rays. Pixels without the object are white with alpha 0.
    """
    assert len(elevations_deg) == len(azimuths_deg)
    rays = _camera_rays(size, supersampling)
    frames = np.empty((len(azimuths_deg), size, size, 4), np.uint8)
    for frame, elevation, azimuth in zip(frames, elevations_deg, azimuths_deg, strict=True):
        colours, covered = _trace(obj, rays, _camera_axes(elevation, azimuth))
        samples = covered.reshape(supersampling**2, size, size)
        count = samples.sum(axis=0, dtype=np.float32)
        total = colours.reshape(3, supersampling**2, size, size).sum(axis=1)
        mean = np.where(count > 0, total / np.maximum(count, 1), np.float32(1))
        frame[..., :3] = (mean * 255 + 0.5).transpose(1, 2, 0)
        frame[..., 3] = count * (255 / supersampling**2) + 0.5
    return frames


def _camera_rays(size: int, supersampling: int) -> Array:
    """Unit directions (3, supersampling^2 * size * size) in camera axes (right, up, forward)."""
    half_width = np.tan(np.radians(FIELD_OF_VIEW_DEG / 2))
    positions = ((np.arange(size * supersampling) + 0.5) / (size * supersampling) * 2 - 1) * half_width
    sub_pixels = positions.reshape(size, supersampling)
    right = np.broadcast_to(sub_pixels.T[None, :, None, :], (supersampling, supersampling, size, size))
    up = np.broadcast_to(-sub_pixels.T[:, None, :, None], right.shape)
    rays = np.stack([right, up, np.ones_like(right)]).reshape(3, -1)
    unit: Array = (rays / np.linalg.norm(rays, axis=0)).astype(np.float32)
    return unit


def _camera_axes(elevation_deg: float, azimuth_deg: float) -> Array:
    """Rows (3, 3): the camera's right, up and forward in world axes."""
    elevation, azimuth = np.radians(elevation_deg), np.radians(azimuth_deg % 360)
    right = [-np.sin(azimuth), np.cos(azimuth), 0.0]
    up = [-np.sin(elevation) * np.cos(azimuth), -np.sin(elevation) * np.sin(azimuth), np.cos(elevation)]
    forward = [-np.cos(elevation) * np.cos(azimuth), -np.cos(elevation) * np.sin(azimuth), -np.sin(elevation)]
    return np.array([right, up, forward], np.float32)


def _trace(obj: Object, rays: Array, axes: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Shaded colours (3, n) in [0, 1] (0 for a miss) and whether each of the n rays hits."""
    eye = np.float32(-CAMERA_DISTANCE) * axes[2]
    depth = np.full(rays.shape[1], np.inf, np.float32)
    colours = np.zeros_like(rays)
    lights = np.stack([LIGHT @ (axes * [[1], [1], [-1]]), [0, 0, 1]]).astype(np.float32)  # world: lamp, sky
    for solid in obj.solids:
        towards = solid.centre - eye
        tangent = (towards @ towards - solid.bounding_radius**2) ** 0.5  # rays beyond it miss the bounding sphere
        near = np.flatnonzero((axes @ towards) @ rays > tangent)
        to_unit: Array = solid.rotation.T / solid.half_sizes[:, None]
        origin: Array = to_unit @ -towards
        camera_to_unit: Array = to_unit @ axes.T
        directions: Array = camera_to_unit @ rays[:, near]
        distance = solid.hit(origin, directions)
        first = distance < depth[near]
        near, distance = near[first], distance[first]
        points: Array = origin[:, None] + distance * directions[:, first]
        normals: Array = solid.normals(points) / solid.half_sizes[:, None]
        lamp, sky = ((lights @ solid.rotation) @ normals) / np.sqrt(np.einsum("cn,cn->n", normals, normals))
        depth[near] = distance
        colours[:, near] = solid.colour[:, None] * (AMBIENT + DIFFUSE * np.maximum(lamp, 0) + SKY * sky)
    return colours, np.isfinite(depth)


def _rotation(yaw_deg: float = 0.0, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> Array:
    """Turn about x by roll, then about y by pitch, then about z by yaw."""
    (cz, cy, cx), (sz, sy, sx) = np.cos(angles := np.radians([yaw_deg, pitch_deg, roll_deg])), np.sin(angles)
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    rotation: Array = (about_z @ about_y @ about_x).astype(np.float32)
    return rotation


def _centred(solids: list[Solid], turn: Array) -> Object:
    """The solids turned and scaled together so that their smallest enclosing sphere is the unit sphere."""
    points = np.concatenate([solid.outline() for solid in solids])
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    for step in range(2, 100):  # Badoiu and Clarkson's steps towards the farthest point
        farthest = points[np.square(points - centre).sum(axis=1).argmax()]
        centre = centre + (farthest - centre) / step
    radius = np.sqrt(np.square(points - centre).sum(axis=1).max())
    return Object(
        tuple(
            replace(
                solid,
                centre=(turn @ (solid.centre - centre) / radius).astype(np.float32),
                half_sizes=(solid.half_sizes / radius).astype(np.float32),
                rotation=turn @ solid.rotation,
            )
            for solid in solids
        )
    )


# Solids have one colour each, and pairs of wheels, arms and legs share theirs: one view of an object then tells most of
# what the others will show.
class _Kit:
    """Draws the random parts of one object: its palette and proportions."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        hue = rng.uniform()
        # Steps of the golden ratio keep the hues of one object far apart.
        self.palette = [self._colour(hue + 0.618034 * step + rng.uniform(-0.04, 0.04)) for step in range(6)]

    def colour(self) -> Array:
        """A random colour (3,) of the palette."""
        return np.array(self.palette[int(self.rng.integers(len(self.palette)))], np.float32)

    def _colour(self, hue: float) -> tuple[float, float, float]:
        if self.rng.uniform() < 0.15:
            grey = float(self.rng.choice([0.2, 0.5, 0.9]))
            return grey, grey, grey
        return colorsys.hsv_to_rgb(hue % 1, self.rng.uniform(0.65, 1.0), float(self.rng.choice([0.6, 0.85, 1.0])))

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.uniform() < probability)

    def part(
        self,
        shape: Shape,
        centre: Triple,
        half_sizes: Triple,
        *,
        turn_deg: Triple = (0, 0, 0),
        taper: float = 1.0,
        colour: Array | None = None,
    ) -> Solid:
        """A solid with its sizes jittered by a tenth, of a random colour if none is given.

        `turn_deg` is yaw, pitch, roll.
        """
        sizes = np.array(half_sizes, np.float32) * self.rng.uniform(0.9, 1.1, 3).astype(np.float32)
        rotation = _rotation(*turn_deg)
        colour = self.colour() if colour is None else colour
        return Solid(shape, np.array(centre, np.float32), sizes, rotation, colour, taper)


def _car(kit: _Kit) -> list[Solid]:
    length, cabin = kit.between(0.8, 1.1), kit.between(-0.35, 0.2)
    wheel, rubber = kit.between(0.2, 0.3), kit.colour()
    return [
        kit.part("box", (0, 0, 0.1), (length, 0.5, 0.26)),
        kit.part("ellipsoid" if kit.chance(0.4) else "box", (cabin, 0, 0.5), (0.45, 0.42, 0.32)),
        kit.part("frustum", (0.6 * length, 0, -0.15), (wheel, wheel, 0.58), turn_deg=(0, 0, 90), colour=rubber),
        kit.part("frustum", (-0.6 * length, 0, -0.15), (wheel, wheel, 0.58), turn_deg=(0, 0, 90), colour=rubber),
        kit.part("box", (length, 0, 0.05), (0.08, 0.4, 0.1)),
    ]


def _house(kit: _Kit) -> list[Solid]:
    width, height = kit.between(0.5, 0.75), kit.between(0.4, 0.65)
    roof = (
        kit.part("box", (0, 0, height), (0.9, 0.68 * width, 0.68 * width), turn_deg=(0, 0, 45))
        if kit.chance(0.6)
        else kit.part("frustum", (0, 0, height + 0.4), (1.0, width + 0.2, 0.4), taper=kit.between(0, 0.3))
    )
    return [
        kit.part("box", (0, 0, 0), (0.8, width, height)),
        roof,
        kit.part("box", (0.45, 0.5 * width, height + 0.45), (0.12, 0.12, 0.35)),
        kit.part("box", (0.8, kit.between(-0.3, 0.3) * width, -0.4 * height), (0.08, 0.18, 0.5 * height)),
    ]


def _robot(kit: _Kit) -> list[Solid]:
    raised, sleeve = kit.between(-60, 150), kit.colour()
    arm_z = 0.3 - 0.3 * float(np.cos(np.radians(raised)))
    return [
        kit.part("box" if kit.chance(0.7) else "ellipsoid", (0, 0, 0), (0.38, 0.5, 0.5)),
        kit.part("box" if kit.chance(0.5) else "ellipsoid", (0, 0, 0.75), (0.3, 0.34, 0.27)),
        kit.part(
            "frustum",
            (0.28 * np.sin(np.radians(raised)), 0.62, arm_z),
            (0.13, 0.13, 0.42),
            turn_deg=(0, raised, 0),
            colour=sleeve,
        ),
        kit.part("box", (0, -0.62, 0.05), (0.14, 0.12, 0.42), colour=sleeve),
        kit.part("frustum", (0, 0, -0.7), (0.42, 0.42, 0.3), taper=kit.between(0.5, 1)),
        kit.part("frustum", (0.32, 0, 0.75), (0.08, 0.08, 0.14), turn_deg=(0, 90, 0), taper=0),
    ]


def _rocket(kit: _Kit) -> list[Solid]:
    radius, fins = kit.between(0.3, 0.42), kit.colour()
    return [
        kit.part("frustum", (0, 0, -0.1), (radius, radius, 0.6), taper=kit.between(0.85, 1)),
        kit.part("frustum", (0, 0, 0.8), (0.95 * radius, 0.95 * radius, 0.35), taper=0.05),
        kit.part("box", (0, 0, -0.6), (0.8, 0.08, 0.22), turn_deg=(0, kit.between(-10, 10), 0), colour=fins),
        kit.part("box", (0, 0, -0.6), (0.08, 0.7, 0.3), colour=fins),
        kit.part("ellipsoid", (radius, 0, 0.15), (0.12, 0.18, 0.18)),
    ]


def _boat(kit: _Kit) -> list[Solid]:
    sail_turn = kit.between(-40, 40)
    return [
        kit.part("ellipsoid", (0, 0, -0.5), (1.0, 0.45, 0.32)),
        kit.part("box", (-0.4, 0, -0.2), (0.3, 0.26, 0.25)),
        kit.part("frustum", (0.2, 0, 0.25), (0.06, 0.06, 0.75)),
        kit.part("box", (-0.1, 0, 0.5), (0.42, 0.05, 0.4), turn_deg=(sail_turn, 0, 0)),
        kit.part("ellipsoid", (0.75, 0, -0.2), (0.18, 0.18, 0.18)),
    ]


def _creature(kit: _Kit) -> list[Solid]:
    head_turn, head, legs = kit.between(-0.3, 0.3), kit.between(0.32, 0.45), kit.colour()
    return [
        kit.part("ellipsoid", (0, 0, 0), (0.75, 0.45, 0.42)),
        kit.part("ellipsoid", (0.75, head_turn, 0.4), (head, head, head)),
        kit.part("frustum", (0.75 + head, 1.2 * head_turn, 0.35), (0.13, 0.13, 0.2), turn_deg=(0, 90, 0), taper=0.1),
        kit.part("box", (0.4, 0, -0.5), (0.14, 0.36, 0.25), colour=legs),
        kit.part("box", (-0.45, 0, -0.5), (0.14, 0.36, 0.25), colour=legs),
        kit.part("frustum", (-0.8, 0, 0.3), (0.12, 0.12, 0.4), turn_deg=(0, kit.between(-70, -20), 0), taper=0.3),
    ]


ASSEMBLIES: tuple[Callable[[_Kit], list[Solid]], ...] = (_car, _house, _robot, _rocket, _boat, _creature)
