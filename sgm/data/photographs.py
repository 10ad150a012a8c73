"""The free photographs inside the scikit-image wheel, split once into those for training and those held out.

All are in the public domain or CC0 by scikit-image's own account (docstrings of `skimage.data`). Its picture of a
motorcycle is left out, as no licence is stated, and so are its diagrams, text pages and tiny pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .backdrops import random_colour


@dataclass(frozen=True)
class Photograph:
    """A picture file of scikit-image, how often it is drawn, and whether it has colour (scenes tint those without)."""

    file: str
    source: str
    share: float = 1.0
    colour: bool = True


TRAINING = (
    Photograph("astronaut.png", "Eileen Collins, NASA; public domain", share=3),
    Photograph("chelsea.png", "a cat, Stefan van der Walt; CC0", share=3),
    Photograph("hubble_deep_field.jpg", "Hubble eXtreme Deep Field, NASA; public domain"),
    Photograph("ihc.png", "stained tissue, CMMI; no known copyright restrictions"),
    Photograph("retina.jpg", "a human retina, Mikael Häggström; CC0"),
    Photograph("brick.png", "a brick wall, CC0Textures; CC0", colour=False),
    Photograph("coins.png", "Greek coins, Brooklyn Museum; no known copyright restrictions", colour=False),
    Photograph("grass.png", "grass, linolafett; CC0", colour=False),
    Photograph("gravel.png", "gravel, CC0Textures; CC0", colour=False),
    Photograph("moon.png", "the surface of the moon, NASA; public domain", colour=False),
)
HELD_OUT = (
    Photograph("coffee.png", "a cup of coffee, Rachel Michetti; CC0"),  # assets/test_image.png
    Photograph("rocket.jpg", "Falcon 9 with DSCOVR, SpaceX; public domain"),
    Photograph("camera.png", "a man with a camera, Lav Varshney; CC0", colour=False),
)


@lru_cache
def load_photograph(photograph: Photograph) -> Image.Image:
    """The picture in RGB, its longer side at most 800 pixels. Needs scikit-image to be installed."""
    with as_file(files("skimage").joinpath("data", photograph.file)) as path, Image.open(path) as image:
        picture = image.convert("RGB")
    picture.thumbnail((800, 800), Image.Resampling.LANCZOS)
    if photograph.file == "retina.jpg":  # only the middle of the disc: its corners are black
        width, height = picture.size
        picture = picture.crop((width // 7, height // 7, width - width // 7, height - height // 7))
    return picture


def random_photograph(rng: np.random.Generator, held_out: bool) -> Photograph:
    """One of the training photographs, or one of the held-out ones, by their shares."""
    choices = HELD_OUT if held_out else TRAINING
    shares = np.array([photograph.share for photograph in choices])
    return choices[int(rng.choice(len(choices), p=shares / shares.sum()))]


def recoloured(rng: np.random.Generator, picture: NDArray[np.floating], photograph: Photograph) -> NDArray[np.float32]:
    """A photograph's pixels (h, w, 3), in [0, 1], in another light; one without colour is tinted."""
    gamma, gains = rng.uniform(0.8, 1.25), rng.uniform(0.88, 1.12, 3)
    if not photograph.colour:
        dark, bright = random_colour(rng, least=0.0) * 0.3, random_colour(rng, (0, 0.5), least=0.75)
        picture = dark + (bright - dark) * picture
    return np.clip(picture**gamma * gains, 0, 1).astype(np.float32)
