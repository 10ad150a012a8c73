"""Coloured solids that a ray can hit: boxes, ellipsoids and frusta (cylinders and cones).

Every solid is a unit shape under an affine map: a ray is carried into the unit frame and hits the unit shape there at
the same ray parameter; only normals have to be carried back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Shape = Literal["box", "ellipsoid", "frustum"]


@dataclass(frozen=True, eq=False)
class Solid:
    """A unit shape, stretched by `half_sizes` (3,), turned by `rotation` (3, 3), moved to `centre` (3,).

    All of its surface has one `colour` (3,), in [0, 1].

    In the unit frame the box is [-1, 1]^3, the ellipsoid the unit ball, and the frustum stands on z = -1 with radius 1
    and ends at z = 1 with radius `taper` (1 is a cylinder, 0 a cone).
    """

    shape: Shape
    centre: Array
    half_sizes: Array
    rotation: Array
    colour: Array
    taper: float = 1.0

    @property
    def bounding_radius(self) -> float:
        """Radius of a sphere around `centre` that holds the solid."""
        x, y, z = (float(half_size) for half_size in self.half_sizes)
        if self.shape == "box":
            return math.hypot(x, y, z)
        if self.shape == "ellipsoid":
            return max(x, y, z)
        return math.hypot(max(x, y), z)

    def outline(self) -> Array:
        """World points (n, 3) whose convex hull is the solid (nearly, for round ones)."""
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        ring = np.stack([np.cos(turn), np.sin(turn), np.zeros(24)])
        if self.shape == "box":
            points = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).astype(float)
        elif self.shape == "ellipsoid":
            heights = np.linspace(-1, 1, 13)
            points = np.concatenate([ring * (1 - z * z) ** 0.5 + [[0], [0], [z]] for z in heights], axis=1)
        else:
            points = np.concatenate([ring - [[0], [0], [1]], ring * self.taper + [[0], [0], [1]]], axis=1)
        outline: Array = ((self.rotation * self.half_sizes) @ points).T.astype(np.float32) + self.centre
        return outline

    def hit(self, origin: Array, directions: Array) -> Array:
        """Ray parameters (n,) where rays from `origin` (3,), outside, along `directions` (3, n) enter; inf for a miss.

        Both are given in the unit frame.
        """
        if self.shape == "box":
            return _hit_box(origin, directions)
        if self.shape == "ellipsoid":
            return _hit_ball(origin, directions)
        return _hit_frustum(origin, directions, self.taper)

    def normals(self, points: Array) -> Array:
        """Outward normals (3, n), of any length, at the surface points (3, n), both in the unit frame."""
        if self.shape == "ellipsoid":
            return points
        if self.shape == "box":
            distance = np.abs(points)
            return np.where(distance >= distance.max(axis=0) - 1e-4, points, np.float32(0))
        x, y, z = points
        slope = (1 - self.taper) / 2
        radius = 1 - slope * (z + 1)
        normals = np.stack([x, y, slope * radius])
        cap = (np.abs(z) > 1 - 1e-4) & (x * x + y * y < (radius - 1e-4) ** 2)
        normals[:, cap] = np.stack([np.zeros_like(z), np.zeros_like(z), z])[:, cap]
        return normals


def _hit_ball(origin: Array, directions: Array) -> Array:
    a = np.einsum("cn,cn->n", directions, directions)
    b = origin @ directions
    discriminant = b * b - a * (origin @ origin - 1)
    return np.where(discriminant > 0, (-b - np.sqrt(np.maximum(discriminant, 0))) / a, np.float32(np.inf))


def _hit_box(origin: Array, directions: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / directions
        middle = -origin[:, None] * inverse
        reach = np.abs(inverse)
        enter = (middle - reach).max(axis=0)
        leave = (middle + reach).min(axis=0)
    return np.where(enter < leave, enter, np.float32(np.inf))


def _hit_frustum(origin: Array, directions: Array, taper: float) -> Array:
    """The nearest of the side's two crossings and the crossing of the cap that faces the ray.

    The side is x^2 + y^2 = r(z)^2 with r(z) = 1 - s (z + 1) and s = (1 - taper) / 2.
    """
    dx, dy, dz = directions
    slope = np.float32((1 - taper) / 2)
    radius = 1 - slope * (origin[2] + 1)
    infinity = np.float32(np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        cap = (-np.sign(dz) - origin[2]) / dz
        cap_radius = np.where(dz > 0, np.float32(1), np.float32(taper))
        on_cap = (origin[0] + cap * dx) ** 2 + (origin[1] + cap * dy) ** 2 <= cap_radius**2
        nearest = np.where(on_cap, cap, infinity)
        a = dx * dx + dy * dy - (slope * dz) ** 2
        b = origin[0] * dx + origin[1] * dy + slope * radius * dz
        c = origin[0] ** 2 + origin[1] ** 2 - radius * radius
        root = np.sqrt(b * b - a * c)  # nan, which no comparison below accepts, where the ray misses
        for side in ((-b - root) / a, (-b + root) / a):
            valid = (np.abs(origin[2] + side * dz) <= 1) & (side < nearest)
            nearest = np.where(valid, side, nearest)
    return nearest
