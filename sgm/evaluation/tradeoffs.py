"""What each way to save time or memory loses: its clips compared with the exact ones, and the evaluation's own scores.

All ways make clips from the same held-out inputs and the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ..config import GuidanceConfig, ModelConfig
from ..metrics.likeness import Pictures, psnr, ssim
from ..metrics.tables import markdown_table
from . import camera_moves, orbits
from .camera_moves import Job
from .generators import Generate

Track = Callable[[str, Sequence[Any]], Iterable[Any]]

EXACT, GUIDED = "exact", "exact, guided"


@dataclass(frozen=True)
class Way:
    """A way to make clips, and which way's clips it is compared with.

    sampling: fields of `SamplingParameters`. fp8: as in sample.py. guided: the small models need no guidance; where
    it is what the way is about, they are given that of their released relatives.
    """

    sampling: Mapping[str, Any] = field(default_factory=dict)
    fp8: str = "off"
    guided: bool = False

    @property
    def exact(self) -> str:
        """The exact way that it is compared with."""
        return GUIDED if self.guided else EXACT


WAYS = {  # those that others are compared with come first
    EXACT: Way(),
    "preset balanced": Way({"preset": "balanced"}),
    "preset fast": Way({"preset": "fast"}),
    "schedule ays": Way({"schedule": "ays"}),
    "sampler heun": Way({"sampler": "heun"}),
    "sampler dpmpp_2m": Way({"sampler": "dpmpp_2m"}),
    "cache_interval 2": Way({"cache_interval": 2}),
    "cache_interval 3": Way({"cache_interval": 3}),
    "fp8 weights": Way(fp8="weights"),
    "fp8 linears": Way(fp8="linears"),
    GUIDED: Way(guided=True),
    "guidance_interval [0.1,100]": Way({"guidance_interval": (0.1, 100)}, guided=True),
}
COLUMNS = {  # by the version's input: the most telling scores, each with a description and number format
    "object": {
        "psnr_db": ("PSNR to the truth, dB", ".2f"),
        "ssim": ("SSIM to the truth", ".3f"),
        "views_right": ("views right", ".1%"),
    },
    "picture": {
        "first_frame_psnr_db": ("first frame to the input, dB", ".2f"),
        "bucket_correlation": ("flow with motion_bucket_id", ".3f"),
        "flicker_levels": ("flicker, levels", ".2f"),
    },
}


@dataclass(frozen=True)
class Losses:
    """For each way: likeness to the exact clips, and the evaluation's scores."""

    title: str
    input: str
    scores: Mapping[str, Mapping[str, float]]

    def table(self) -> str:
        """A Markdown table with a row for each way."""
        columns = {"psnr_to_exact_db": ("PSNR to exact, dB", ".1f"), "ssim_to_exact": ("SSIM to exact", ".3f")}
        columns |= COLUMNS[self.input]
        rows = [["", *(words for words, _ in columns.values())]]
        for name, of_way in self.scores.items():
            rows.append([name, *(format(of_way[score], form) for score, (_, form) in columns.items())])
        return markdown_table(rows)

    def as_json(self) -> dict[str, Any]:
        """Title and scores."""
        return {"title": self.title, "scores": self.scores}


def released_guidance(config: ModelConfig) -> GuidanceConfig:
    """The guidance of svd or sv3d_u, whichever has the version's shape of guidance."""
    return replace(config.guidance, min_scale=1.0, max_scale=2.5)


def measure_losses(
    generate: Callable[[Way], Generate],
    config: ModelConfig,
    count: int,
    track: Track = lambda name, clips: clips,
) -> Losses:
    """What each way loses on `count` held-out objects or pictures.

    generate: returns the function that makes clips in a given way. track: wraps the list of clips to make in each way,
    to show how many are done.
    """
    made: dict[str, list[Pictures]] = {}
    scores = {}
    measure = _orbits if config.input == "object" else _scenes
    for number, (name, way) in enumerate(WAYS.items(), 1):
        clips, of_way = measure(generate(way), config, count, partial(track, f"{name} ({number} of {len(WAYS)})"))
        if way.exact == name:
            made[name] = clips
        scores[name] = _likeness(clips, made[way.exact]) | of_way
    return Losses(f"{config.version}: what is lost, on {count} held-out {config.input}s", config.input, scores)


def _orbits(
    generate: Generate, config: ModelConfig, count: int, track: Callable[[Sequence[int]], Iterable[int]]
) -> tuple[list[Pictures], dict[str, float]]:
    clips, features = [], []
    for number in track(range(count)):
        given = orbits.held_out_orbit(number, config)
        clips.append(orbits.generated_views(generate, given))
        features.append(orbits.view_features(clips[-1], given.views))
    return clips, orbits.view_scores(features)


def _scenes(
    generate: Generate, config: ModelConfig, count: int, track: Callable[[Sequence[Job]], Iterable[Job]]
) -> tuple[list[Pictures], dict[str, float]]:
    pictures = [camera_moves.held_out_picture(number, config) for number in range(count)]
    clips, features = [], []
    for number, setting in track([(number, setting) for number in range(count) for setting in camera_moves.SETTINGS]):
        clips.append(camera_moves.generated_clip(generate, number, pictures[number], setting))
        features.append(camera_moves.clip_features(number, setting, pictures[number], clips[-1]))
    return clips, camera_moves.clip_scores(features)


def _likeness(clips: Sequence[Pictures], exact: Sequence[Pictures]) -> dict[str, float]:
    """Means over clips of PSNR, and over frames of SSIM, to the exact clips."""
    pairs = list(zip(clips, exact, strict=True))
    return {
        "psnr_to_exact_db": float(np.mean([psnr(clip, other) for clip, other in pairs])),
        "ssim_to_exact": float(np.mean([ssim(*frames) for pair in pairs for frames in zip(*pair, strict=True)])),
    }
