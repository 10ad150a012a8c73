"""Stills of every kind that an autoencoder must keep: photographs by day and by night, drawings, scenes, objects."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .backdrops import random_colour
from .camera_moves import random_object_view, scene_clip
from .illustrations import illustration, line_drawing, night
from .photographs import load_photograph, random_photograph, recoloured

Array = NDArray[np.float32]
Still = Callable[[np.random.Generator, int, bool], Array]

FRAME_WIDTH, FRAME_HEIGHT = 320, 192  # the frames that the stills are cut from, in pixels


def varied_still(seed: int, size: int, held_out: bool = False) -> NDArray[np.uint8]:
    """A piece (size, size, 3), RGB, of a picture as it looks in a frame of `FRAME_WIDTH` x `FRAME_HEIGHT` pixels.

    seed: any integer from 0. held_out: whether to use only content that is never trained on.
    """
    rng = np.random.Generator(np.random.PCG64([seed, int(held_out), 2]))
    kinds = list(KINDS)
    kind = kinds[int(rng.choice(len(kinds), p=[KINDS[kind] for kind in kinds]))]
    still: NDArray[np.uint8] = (np.clip(kind(rng, size, held_out), 0, 1) * 255).round().astype(np.uint8)
    return still


def photograph(rng: np.random.Generator, size: int, held_out: bool) -> Array:
    """A piece of a photograph, of which the frame shows between 45 % and all."""
    chosen = random_photograph(rng, held_out)
    image = load_photograph(chosen)
    scale = rng.uniform(0.45, 1) * min(image.width / FRAME_WIDTH, image.height / FRAME_HEIGHT)
    left, top = rng.uniform(0, image.width - scale * size), rng.uniform(0, image.height - scale * size)
    piece = image.resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + scale * size, top + scale * size)
    )
    return recoloured(rng, np.asarray(piece, np.float32) / 255, chosen)


def vivid_photograph(rng: np.random.Generator, size: int, held_out: bool) -> Array:
    """A photograph with its colours exchanged, and with less or more of them."""
    picture = photograph(rng, size, held_out)[..., rng.permutation(3)]
    grey = picture.mean(axis=2, keepdims=True)
    vivid: Array = grey + (picture - grey) * np.float32(rng.uniform(0.5, 2.5))
    return vivid


def photograph_at_night(rng: np.random.Generator, size: int, held_out: bool) -> Array:
    """A photograph made dark, half of the time with lamps."""
    return darkened(rng, photograph(rng, size, held_out))


def darkened(rng: np.random.Generator, picture: Array) -> Array:
    """A picture (h, w, 3) as by moonlight, half of the time with the lamps of a night scene."""
    tint = rng.uniform(0.5, 1, 3).astype(np.float32)
    dark: Array = picture ** rng.uniform(1, 2) * tint * np.float32(rng.uniform(0.1, 0.5))
    height, width, _ = picture.shape
    return np.maximum(dark, night(rng, max(width, height))[:height, :width]) if rng.uniform() < 0.5 else dark


def scene(rng: np.random.Generator, size: int, held_out: bool) -> Array:
    """A photograph or painted backdrop with subjects in front of it."""
    return scene_clip(int(rng.integers(2**62)), 1, size, 0, 1, held_out)[0].astype(np.float32) / 255


def toy(rng: np.random.Generator, size: int, held_out: bool) -> Array:
    """An object over a plain colour, mostly white."""
    view = random_object_view(rng, size, held_out)
    backdrop = np.ones(3, np.float32) if rng.uniform() < 0.6 else random_colour(rng, (0, 1), least=0.0)
    return view[..., :3] + backdrop * (1 - view[..., 3:])


def drawn(draw: Callable[[np.random.Generator, int], Array]) -> Still:
    """A kind of drawing, of which any other seed is held out."""
    return lambda rng, size, held_out: draw(rng, size)


KINDS: dict[Still, float] = {
    photograph: 0.5,
    vivid_photograph: 0.04,
    photograph_at_night: 0.1,
    scene: 0.1,
    toy: 0.04,
    drawn(illustration): 0.07,
    drawn(line_drawing): 0.07,
    drawn(night): 0.08,
}
