"""Orbits around held-out objects, compared with the renderer's own pictures of them.

The input is the last view of a regular orbit at one elevation; the truth is what the renderer shows at the orbit's
angles. The last view of a generated orbit is the input itself, so scores are also given without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..data.clips import ELEVATION_RANGE_DEG, over_white
from ..data.objects import HELD_OUT_SEED, random_object, render_orbit
from ..inputs.orbit import Orbit, make_orbit
from ..metrics.likeness import Pictures, nearest_is_own, psnr_of_error, squared_errors, ssim
from .generators import Generate, unit_range
from .report import Report

MEAN_OF_OBJECTS = 500

LABELS = {
    "psnr_db": ("PSNR of all views, dB", ".2f"),
    "ssim": ("SSIM of all views", ".3f"),
    "views_right": ("views right, all", ".1%"),
    "generated_psnr_db": ("PSNR without the given view, dB", ".2f"),
    "generated_ssim": ("SSIM without the given view", ".3f"),
    "generated_views_right": ("views right without the given one", ".1%"),
}


@dataclass(frozen=True, eq=False)
class HeldOutOrbit:
    """An object that was never trained on, and its true views (T, size, size, 3) in [0, 1], the last one the input."""

    object_seed: int
    orbit: Orbit
    views: Pictures


@dataclass(frozen=True, eq=False)
class ViewFeatures:
    """For an orbit's T views: squared errors (T, T) to every true view, and SSIM (T,) to their own true view."""

    errors: NDArray[np.float64]
    similarities: NDArray[np.float64]


MakeViews = Callable[[HeldOutOrbit], Pictures]


def held_out_orbit(number: int, config: ModelConfig) -> HeldOutOrbit:
    """The held-out object of this number, at an elevation of its own in [-10, 40] degrees."""
    seed = HELD_OUT_SEED + number
    elevation_deg = np.random.Generator(np.random.PCG64([seed, 1])).uniform(*ELEVATION_RANGE_DEG)
    orbit = make_orbit(config.num_frames, elevation_deg)
    pictures = render_orbit(random_object(seed), orbit.elevations_deg, orbit.azimuths_deg, config.width)
    return HeldOutOrbit(seed, orbit, unit_range(over_white(pictures)))


def evaluate_orbits(
    generate: Generate,
    reconstruct: Callable[[Pictures], Pictures],
    config: ModelConfig,
    num_objects: int,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Report:
    """Scores of generated orbits, of two baselines that ignore the orbit, and of the best that the autoencoder allows.

    track: wraps the numbers of the objects, to show how many are done.
    """
    mean_view = mean_training_view(MEAN_OF_OBJECTS, config.width)
    makers: dict[str, MakeViews] = {
        "generated": lambda given: generated_views(generate, given),
        "repeat the input": lambda given: np.broadcast_to(given.views[-1], given.views.shape),
        "mean of the training views": lambda given: np.broadcast_to(mean_view, given.views.shape),
        "truth through the autoencoder": lambda given: reconstruct(given.views),
    }
    features: dict[str, list[ViewFeatures]] = {name: [] for name in makers}
    details = []
    for number in track(range(num_objects)):
        given = held_out_orbit(number, config)
        for name, make in makers.items():
            features[name].append(view_features(make(given), given.views))
        details.append(describe(given, features["generated"][-1]))
    return Report(
        title=f"{config.version}: {num_objects} held-out objects, {config.num_frames} views of"
        f" {config.width}x{config.width} pixels",
        labels=LABELS,
        scores={name: view_scores(of_orbits) for name, of_orbits in features.items()},
        details=details,
    )


def generated_views(generate: Generate, given: HeldOutOrbit) -> Pictures:
    """The model's views (T, size, size, 3): the noise's seed is the object's number."""
    orbit = given.orbit
    return generate(
        given.views[-1],
        num_frames=len(given.views),
        elevations_deg=orbit.elevations_deg,
        azimuths_deg=orbit.azimuths_deg,
        seed=given.object_seed - HELD_OUT_SEED,
    )


def mean_training_view(num_objects: int, size: int) -> Pictures:
    """The mean (size, size, 3) of one view, from a random side, of each of `num_objects` training objects."""
    rng = np.random.Generator(np.random.PCG64(0))
    total = np.zeros((size, size, 3))
    for seed in range(num_objects):
        elevation_deg, azimuth_deg = rng.uniform(*ELEVATION_RANGE_DEG), rng.uniform(0, 360)
        total += over_white(render_orbit(random_object(seed), [elevation_deg], [azimuth_deg], size))[0]
    return (total / (255 * num_objects)).astype(np.float32)


def view_features(views: Pictures, truth: Pictures) -> ViewFeatures:
    """What the scores need from an orbit's views (T, H, W, 3) and the true ones."""
    similarities = np.array([ssim(view, true) for view, true in zip(views, truth, strict=True)])
    return ViewFeatures(squared_errors(views, truth), similarities)


def view_scores(orbits: Sequence[ViewFeatures]) -> dict[str, float]:
    """Means over the orbits, of all views and of all but the last. An orbit's PSNR is over all its pixels."""
    whole = [_statistics(orbit, slice(None)) for orbit in orbits]
    generated = [_statistics(orbit, slice(-1)) for orbit in orbits]
    return _means(whole) | {f"generated_{name}": mean for name, mean in _means(generated).items()}


def describe(given: HeldOutOrbit, features: ViewFeatures) -> dict[str, Any]:
    """One object's entry in the JSON file: what was requested, and the statistics of the generated views."""
    asked = {"object_seed": given.object_seed, "elevation_deg": given.orbit.elevations_deg[0]}
    return asked | {f"generated_{name}": value for name, value in _statistics(features, slice(-1)).items()}


def _statistics(features: ViewFeatures, views: slice) -> dict[str, float]:
    return {
        "psnr_db": psnr_of_error(float(features.errors.diagonal()[views].mean())),
        "ssim": float(features.similarities[views].mean()),
        "views_right": float(nearest_is_own(features.errors)[views].mean()),
    }


def _means(statistics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in statistics])) for name in statistics[0]}
