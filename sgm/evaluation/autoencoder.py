"""What the autoencoder keeps of held-out pictures of each kind: likeness, and how far their mean colours move."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..config import ModelConfig
from ..data.illustrations import illustration, line_drawing, night
from ..data.photographs import HELD_OUT, load_photograph
from ..data.stills import darkened, scene
from ..inputs.image import fit_image
from ..metrics.likeness import Pictures, psnr
from .generators import unit_range
from .report import Report

LABELS = {
    "psnr_db": ("PSNR, dB, mean", ".2f"),
    "least_psnr_db": ("PSNR, dB, least", ".2f"),
    "colour_levels": ("how far a mean colour moves, levels of 255, most", ".2f"),
}
NUM_DRAWN = 8


def held_out_pictures(config: ModelConfig) -> dict[str, list[Pictures]]:
    """Pictures (H, W, 3), in [0, 1], by kind: all that no autoencoder was trained on."""
    size = config.width, config.height
    photographs = [unit_range(np.asarray(fit_image(load_photograph(held_out), size))) for held_out in HELD_OUT]

    def generators() -> list[np.random.Generator]:
        return [np.random.Generator(np.random.PCG64([number, 2**40])) for number in range(NUM_DRAWN)]

    def drawn(draw: Callable[[np.random.Generator, int], Pictures]) -> list[Pictures]:
        return [draw(rng, max(size))[: config.height, : config.width] for rng in generators()]

    return {
        "photographs": photographs,
        "photographs at night": [darkened(*pair) for pair in zip(generators(), photographs, strict=False)],
        "illustrations": drawn(illustration),
        "line drawings": drawn(line_drawing),
        "night scenes": drawn(night),
        "scenes": drawn(lambda rng, side: scene(rng, side, held_out=True)),
    }


def evaluate_autoencoder(reconstruct: Callable[[Pictures], Pictures], config: ModelConfig) -> Report:
    """Scores of each kind of picture; reconstruct: a clip (T, H, W, 3) after the autoencoder."""
    scores, details = {}, []
    for kind, pictures in held_out_pictures(config).items():
        copies = [reconstruct(np.repeat(picture[None], config.num_frames, axis=0))[0] for picture in pictures]
        likeness = [psnr(copy, picture) for copy, picture in zip(copies, pictures, strict=True)]
        levels = [_colour_levels(copy, picture) for copy, picture in zip(copies, pictures, strict=True)]
        details += [
            {"kind": kind, "psnr_db": decibels, "colour_levels": moved}
            for decibels, moved in zip(likeness, levels, strict=True)
        ]
        scores[kind] = {
            "psnr_db": float(np.mean(likeness)),
            "least_psnr_db": min(likeness),
            "colour_levels": max(levels),
        }
    title = f"{config.version}: held-out pictures of {config.width}x{config.height} pixels through the autoencoder"
    return Report(title, LABELS, scores, details)


def _colour_levels(copy: Pictures, picture: Pictures) -> float:
    """How far the mean of the colour channel that moves most has moved, in levels of 255."""
    return float(255 * np.abs((copy - picture).mean((0, 1), dtype=np.float64)).max())
