"""Clips from held-out pictures: do they start from their picture, and does their motion follow the two settings?

Each picture is set in motion at several values of motion_bucket_id and of fps_id, all from the same noise, as if a user
turned one knob. True clips of held-out scenes are measured at the same settings, with the same estimator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..config import ModelConfig
from ..data.camera_moves import scene_clip
from ..data.photographs import HELD_OUT, load_photograph
from ..inputs.image import fit_image
from ..metrics.likeness import Pictures, psnr, rank_correlation
from ..metrics.motion import flicker_levels, flow_percent, optical_flow
from .generators import Generate, unit_range
from .report import Report


@dataclass(frozen=True)
class Setting:
    """How a clip should move."""

    motion_bucket_id: int
    fps_id: int


BUCKET_SWEEP = tuple(Setting(bucket, 6) for bucket in (10, 45, 80, 115, 150, 185, 220, 250))
FPS_SWEEP = tuple(Setting(127, fps) for fps in (4, 6, 9, 14, 21))
SETTINGS = BUCKET_SWEEP + FPS_SWEEP

LABELS = {
    "first_frame_psnr_db": ("PSNR of the first frame to the input, dB", ".2f"),
    "bucket_correlation": ("rank correlation of mean flow with motion_bucket_id", ".3f"),
    "bucket_correlation_each": ("the same for each picture, mean", ".3f"),
    "fps_correlation": ("rank correlation of mean flow with fps_id", ".3f"),
    "fps_correlation_each": ("the same for each picture, mean", ".3f"),
    "flicker_levels": ("flicker, levels of 255", ".2f"),
} | {
    f"flow_percent_{setting.motion_bucket_id}_{setting.fps_id}": (
        f"flow, % of the width per frame: bucket {setting.motion_bucket_id}, {setting.fps_id} fps",
        ".2f",
    )
    for setting in SETTINGS
}


@dataclass(frozen=True)
class ClipFeatures:
    """The measurements of one clip, with its picture and setting."""

    picture: int
    setting: Setting
    first_frame_psnr_db: float
    flow_percent: float
    flicker_levels: float


Job = tuple[int, Setting]  # a picture's number, and how it should move


def held_out_picture(number: int, config: ModelConfig) -> Pictures:
    """A picture (H, W, 3) in [0, 1]: first the held-out photographs, whole, then first frames of held-out scenes."""
    if number < len(HELD_OUT):
        picture = load_photograph(HELD_OUT[number])
    else:
        picture = Image.fromarray(scene_clip(number, 1, config.height, 0, 1, held_out=True)[0])
    return unit_range(np.asarray(fit_image(picture, (config.width, config.height))))


def true_clip(number: int, config: ModelConfig, setting: Setting) -> Pictures:
    """A clip (T, H, H, 3) in [0, 1] of a held-out scene that moves as the setting says."""
    motion, fps = setting.motion_bucket_id, setting.fps_id
    return unit_range(scene_clip(number, config.num_frames, config.height, motion, fps, held_out=True))


def evaluate_scenes(
    generate: Generate,
    reconstruct: Callable[[Pictures], Pictures],
    config: ModelConfig,
    num_pictures: int,
    track: Callable[[Sequence[Job]], Iterable[Job]] = iter,
) -> Report:
    """Scores of generated clips, of true ones, and of the best first frame that the autoencoder allows.

    track: wraps the list of clips to make, to show how many are done.
    """
    pictures = [held_out_picture(number, config) for number in range(num_pictures)]
    copies = [reconstruct(np.repeat(picture[None], config.num_frames, axis=0))[0] for picture in pictures]
    generated, true = [], []
    for number, setting in track([(number, setting) for number in range(num_pictures) for setting in SETTINGS]):
        picture = pictures[number]
        frames = generated_clip(generate, number, picture, setting)
        generated.append(clip_features(number, setting, picture, frames))
        frames = true_clip(number, config, setting)
        true.append(clip_features(number, setting, frames[0], frames))
    copied_psnr_db = float(np.mean([psnr(copy, picture) for copy, picture in zip(copies, pictures, strict=True)]))
    return Report(
        title=f"{config.version}: {num_pictures} held-out pictures, each set in motion {len(SETTINGS)} times, clips of"
        f" {config.num_frames} frames of {config.width}x{config.height} pixels",
        labels=LABELS,
        scores={
            "generated": clip_scores(generated),
            "true clips": clip_scores(true),
            "input through the autoencoder": {"first_frame_psnr_db": copied_psnr_db},
        },
        details=[_flat(clip) for clip in generated],
    )


def generated_clip(generate: Generate, number: int, picture: Pictures, setting: Setting) -> Pictures:
    """The model's clip (T, H, W, 3); the noise's seed is the picture's number, whatever the setting."""
    return generate(picture, seed=number, motion_bucket_id=setting.motion_bucket_id, fps_id=setting.fps_id)


def clip_features(number: int, setting: Setting, picture: Pictures, frames: Pictures) -> ClipFeatures:
    """Measure the frames (T, H, W, 3) of a clip that starts from a picture (H, W, 3)."""
    flow = optical_flow(frames)
    return ClipFeatures(number, setting, psnr(frames[0], picture), flow_percent(flow), flicker_levels(frames, flow))


def clip_scores(clips: Sequence[ClipFeatures]) -> dict[str, float]:
    """Means over all clips, the mean flow at each setting, and how well flow follows each of the two settings.

    The correlations are of the flow averaged over all pictures; those named `_each`, the mean of each picture's own.
    """
    scores = {
        "first_frame_psnr_db": float(np.mean([clip.first_frame_psnr_db for clip in clips])),
        "flicker_levels": float(np.mean([clip.flicker_levels for clip in clips])),
    }
    for name, settings in {"bucket": BUCKET_SWEEP, "fps": FPS_SWEEP}.items():
        values = [setting.motion_bucket_id if name == "bucket" else setting.fps_id for setting in settings]
        flows = _flow_table(clips, settings)
        mean_flow = flows.mean(axis=0).tolist()
        scores[f"{name}_correlation"] = rank_correlation(values, mean_flow)
        scores[f"{name}_correlation_each"] = float(np.mean([rank_correlation(values, row) for row in flows.tolist()]))
        for setting, mean in zip(settings, mean_flow, strict=True):
            scores[f"flow_percent_{setting.motion_bucket_id}_{setting.fps_id}"] = mean
    return scores


def _flow_table(clips: Sequence[ClipFeatures], settings: Sequence[Setting]) -> NDArray[np.float64]:
    """Flow (pictures, settings)."""
    flows = {(clip.picture, clip.setting): clip.flow_percent for clip in clips}
    pictures = sorted({clip.picture for clip in clips})
    return np.array([[flows[picture, setting] for setting in settings] for picture in pictures])


def _flat(clip: ClipFeatures) -> dict[str, Any]:
    features: dict[str, Any] = asdict(clip)
    setting: dict[str, Any] = features.pop("setting")
    return setting | features
