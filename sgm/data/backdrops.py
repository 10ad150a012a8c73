"""Random painted backdrops: landscapes, rooms and patterned walls, as functions of position in the scene.

Positions are x to the right and y downwards, in frame widths from the centre of the scene. Colours are RGB in [0, 1].
"""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def random_backdrop(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """A backdrop (h, w, 3) seen at the positions x (w,) and y (h,)."""
    x, y = np.meshgrid(x, y)
    kind = rng.uniform()
    if kind < 0.5:
        return _landscape(rng, x, y)
    if kind < 0.75:
        return _room(rng, x, y)
    return _pattern(rng, x, y)


def random_colour(rng: np.random.Generator, saturation: tuple[float, float] = (0.2, 0.9), least: float = 0.3) -> Array:
    """A colour (3,) of random hue, its value from `least` to 1."""
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(least, 1)), np.float32)


def _mix(first: Array, second: Array, share: Array) -> Array:
    """From the first colour(s) to the second as share (h, w) goes from 0 to 1."""
    share = np.clip(share, 0, 1)[..., None].astype(np.float32)
    mixed: Array = first + (second - first) * share
    return mixed


def _noise(rng: np.random.Generator, x: Array, y: Array, cells: float, octaves: int = 3) -> Array:
    """Smooth value noise in [0, 1], its coarsest octave with `cells` random values per frame width."""
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for octave in range(octaves):
        lattice = rng.uniform(0, 1, (64, 64)).astype(np.float32)
        across, down = x * (cells * 2**octave) + 32, y * (cells * 2**octave) + 32
        left, top = np.floor(across), np.floor(down)
        right_share, low_share = across - left, down - top
        right_share, low_share = (share * share * (3 - 2 * share) for share in (right_share, low_share))
        column, row = left.astype(np.intp), top.astype(np.intp)
        upper, lower = (
            lattice[r % 64, column % 64] * (1 - right_share) + lattice[r % 64, (column + 1) % 64] * right_share
            for r in (row, row + 1)
        )
        total += (upper * (1 - low_share) + lower * low_share) / 2**octave
    return total / np.float32(2 - 0.5 ** (octaves - 1))


def _edge(signed_distance: Array, x: Array) -> Array:
    """1 where the distance is positive, 0 where negative, blended over one pixel of the grid x (h, w)."""
    coverage: Array = np.clip(signed_distance / (x[0, 1] - x[0, 0]) + 0.5, 0, 1)
    return coverage


def _landscape(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """A sky with clouds and a sun, up to three ridges, nearer ones stronger in colour, and a textured plain."""
    horizon = rng.uniform(-0.1, 0.3)
    high, low = random_colour(rng, (0.3, 0.9)), random_colour(rng, (0.1, 0.5), least=0.7)
    picture = _mix(high, low, (y + 0.6) / (horizon + 0.6))
    clouds = (_noise(rng, x, 2.5 * y, cells=2) - rng.uniform(0.45, 0.65)) * 4
    picture = _mix(picture, random_colour(rng, (0, 0.2), least=0.8), clouds * rng.uniform(0.4, 0.9))
    sun_x, sun_y, radius = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, horizon), rng.uniform(0.04, 0.1)
    picture = _mix(picture, random_colour(rng, (0, 0.6), least=0.95), _edge(radius - np.hypot(x - sun_x, y - sun_y), x))
    land = random_colour(rng, (0.3, 0.9), least=0.2)
    for ridge in range(int(rng.integers(0, 4))):
        crest = horizon - 0.18 + 0.06 * ridge - 0.25 * (_noise(rng, x[:1], y[:1] * 0, cells=3) - 0.5)
        shade = _mix(low, land, np.full_like(x, 0.35 + 0.15 * ridge))
        picture = _mix(picture, shade, _edge(y - crest, x))
    return _mix(picture, _floor(rng, x, y - horizon), _edge(y - horizon, x))


def _room(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """A patterned or plain wall with a skirting board, and a floor."""
    corner = rng.uniform(0.1, 0.35)
    wall = _pattern(rng, x, y) if rng.uniform() < 0.5 else _mix(random_colour(rng), random_colour(rng), y + 0.5)
    picture = _mix(wall, random_colour(rng), _edge(y - corner + rng.uniform(0.02, 0.06), x))
    return _mix(picture, _floor(rng, x, y - corner), _edge(y - corner, x))


def _floor(rng: np.random.Generator, x: Array, below_horizon: Array) -> Array:
    """A level plain seen in perspective: tiles, planks or grass that fade with distance."""
    distance: Array = np.float32(0.3) / (np.maximum(below_horizon, 0) + np.float32(0.05))
    across: Array = x * distance
    kind, frequency = rng.uniform(), rng.uniform(8, 16)
    if kind < 0.35:
        texture = np.tanh(np.sin(frequency * across) * np.sin(frequency * distance) * 4 / distance)
    elif kind < 0.6:
        texture = np.tanh(np.sin(1.5 * frequency * across) * 3 / distance)
    else:
        texture = (_noise(rng, across, 2 * distance, cells=frequency) - 0.5) * 3 / np.maximum(distance, 1)
    first, second = random_colour(rng), random_colour(rng)
    return _mix(first, second, 0.5 + rng.uniform(0.2, 0.5) * texture)


def _pattern(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """Stripes, checks, dots or marble in two colours, at a random angle, in slowly varying light."""
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(8, 35)
    across, along = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    kind = int(rng.integers(4))
    if kind == 0:
        texture = np.tanh(3 * np.sin(frequency * across))
    elif kind == 1:
        texture = np.tanh(6 * np.sin(frequency * across) * np.sin(frequency * along))
    elif kind == 2:
        texture = np.tanh(6 * (np.sin(frequency * across) * np.sin(frequency * along) - 0.5))
    else:
        texture = np.sin(0.5 * frequency * across + 6 * _noise(rng, x, y, cells=3))
    picture = _mix(random_colour(rng), random_colour(rng), 0.5 + rng.uniform(0.15, 0.5) * texture)
    return picture * (0.7 + 0.3 * _noise(rng, x, y, cells=1, octaves=1))[..., None]
