"""Drawn pictures of kinds that the photographs lack: flat illustrations, line drawings with lettering, night scenes.

Sizes inside a picture are in pixels, since an autoencoder sees pixels: the same kinds of edges at every picture size.
"""

from __future__ import annotations

import string
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .backdrops import random_colour

Array = NDArray[np.float32]
Draw = ImageDraw.ImageDraw

OVERSAMPLING = 3  # pictures are drawn this much larger, then averaged, so that their edges are smooth


def illustration(rng: np.random.Generator, size: int) -> Array:
    """Shapes in flat or slowly changing colours (size, size, 3), in [0, 1], about half of them with outlines."""
    first, second = _any_colour(rng), _any_colour(rng)
    along = np.linspace(0, 1, size * OVERSAMPLING, dtype=np.float32)[:, None, None]
    share = along if rng.uniform() < 0.4 else 0 * along
    backdrop = np.broadcast_to(first + (second - first) * share, (len(along), len(along), 3))

    def shapes(draw: Draw, side: int) -> None:
        outline = _pixels(_any_colour(rng)) if rng.uniform() < 0.5 else None
        width = int(rng.integers(2, 12))
        for _ in range(int(rng.integers(2, 14))):
            fill, centre, radius = _pixels(_any_colour(rng)), rng.uniform(0, side, 2), side * rng.uniform(0.04, 0.5)
            kind = int(rng.integers(3))
            box = _box(centre, radius * rng.uniform(0.4, 1, 2))
            if kind == 0:
                draw.ellipse(box, fill, outline, width)
            elif kind == 1:
                draw.rounded_rectangle(box, float(rng.uniform(0, 0.4) * radius), fill, outline, width)
            else:
                angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
                corners = centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
                draw.polygon([tuple(corner) for corner in corners.tolist()], fill, outline, width)

    return _drawn(backdrop, shapes)


def line_drawing(rng: np.random.Generator, size: int) -> Array:
    """Pen strokes, hatching and lettering on plain paper (size, size, 3), in [0, 1]; a third are light on dark."""
    paper, ink = random_colour(rng, (0, 0.25), least=0.8), random_colour(rng, (0, 1), least=0.0) * 0.5
    if rng.uniform() < 1 / 3:
        paper, ink = ink, paper
    backdrop = np.broadcast_to(paper, (size * OVERSAMPLING, size * OVERSAMPLING, 3))

    def strokes(draw: Draw, side: int) -> None:
        for _ in range(int(rng.integers(3, 12))):
            colour = _pixels(ink if rng.uniform() < 0.7 else _any_colour(rng))
            width = int(rng.integers(2, 9))
            start, angle, turn = rng.uniform(0, side, 2), rng.uniform(0, 2 * np.pi), rng.normal(0, 0.12)
            angles = angle + np.cumsum(turn + rng.normal(0, 0.05, 40))
            path = start + np.cumsum(np.stack([np.cos(angles), np.sin(angles)], 1), 0) * side * 0.02
            for copy in range(int(rng.choice([1, 1, 1, 8]))):  # eight side by side are hatching
                draw.line([tuple(point) for point in (path + copy * 3 * width).tolist()], colour, width, "curve")
        for _ in range(int(rng.integers(0, 5))):
            letters = "".join(rng.choice(list(string.ascii_letters + string.digits + "  "), int(rng.integers(2, 16))))
            font = ImageFont.load_default(float(rng.uniform(8, 40) * OVERSAMPLING))
            draw.text(tuple(rng.uniform(-0.2, 0.9, 2) * side), letters, _pixels(ink), font)

    return _drawn(backdrop, strokes)


def night(rng: np.random.Generator, size: int) -> Array:
    """A dark sky over houses with lit windows, and lamps that glow (size, size, 3), in [0, 1]."""
    sky = random_colour(rng, (0.2, 0.9), least=0.0) * rng.uniform(0.02, 0.25)
    glow = random_colour(rng, (0.2, 0.9), least=0.2) * rng.uniform(0.0, 0.3)
    down = np.linspace(0, 1, size * OVERSAMPLING, dtype=np.float32)[:, None, None]
    backdrop = np.broadcast_to(sky + (glow - sky) * down ** float(rng.uniform(1, 4)), (len(down), len(down), 3))
    lamp = random_colour(rng, (0.1, 0.9), least=0.8)

    def houses(draw: Draw, side: int) -> None:
        for _ in range(int(rng.integers(0, 60))):  # stars
            draw.ellipse(_box(rng.uniform(0, side, 2), rng.uniform(1, 3, 2)), _pixels(rng.uniform(0.3, 1, 1).repeat(3)))
        for left in np.arange(rng.uniform(-0.2, 0), 1, rng.uniform(0.15, 0.5)):
            top, right = rng.uniform(0.1, 1) * side, (left + rng.uniform(0.1, 0.45)) * side
            draw.rectangle((left * side, top, right, side), _pixels(sky * rng.uniform(0.2, 1.2)))
            step, lit = rng.uniform(12, 45), rng.uniform(0.1, 0.8)
            for x in np.arange(left * side + step / 2, right - step, step):
                for y in np.arange(top + step / 2, side, 1.4 * step):
                    if rng.uniform() < lit:
                        draw.rectangle((x, y, x + 0.5 * step, y + 0.7 * step), _pixels(lamp * rng.uniform(0.2, 1)))

    picture = _drawn(backdrop, houses)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    for _ in range(int(rng.integers(0, 9))):
        colour = lamp if rng.uniform() < 0.5 else random_colour(rng, (0.3, 1), least=0.7)
        (column, row), radius = rng.uniform(0, size, 2), rng.uniform(1, 10)
        distance = ((x - column) ** 2 + (y - row) ** 2) / radius**2
        picture = picture + colour * (np.exp(-distance) + 0.2 / (1 + distance))[..., None]
    return np.clip(picture, 0, 1).astype(np.float32)


def _drawn(backdrop: Array, draw_on: Callable[[Draw, int], None]) -> Array:
    """The backdrop (h, h, 3) with what is drawn on it, reduced by `OVERSAMPLING`."""
    canvas = Image.fromarray((np.clip(backdrop, 0, 1) * 255).round().astype(np.uint8))
    draw_on(ImageDraw.Draw(canvas), len(backdrop))
    return np.asarray(canvas.reduce(OVERSAMPLING), np.float32) / np.float32(255)


def _any_colour(rng: np.random.Generator) -> Array:
    """Any colour (3,): often fully saturated, sometimes black, white or grey."""
    if rng.uniform() < 0.25:
        return np.full(3, rng.choice([0, 0.05, 0.5, 0.95, 1, rng.uniform()]), np.float32)
    return random_colour(rng, (0.3, 1.3), least=0.15).clip(0, 1)


def _pixels(colour: NDArray[np.floating]) -> tuple[int, int, int]:
    red, green, blue = (np.clip(colour, 0, 1) * 255).round().astype(int).tolist()
    return red, green, blue


def _box(centre: NDArray[np.floating], half_sizes: NDArray[np.floating]) -> tuple[float, float, float, float]:
    (x, y), (half_width, half_height) = centre.tolist(), half_sizes.tolist()
    return x - half_width, y - half_height, x + half_width, y + half_height
