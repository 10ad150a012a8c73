"""What defines a training run, read from `configs/training/`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ..config import NO_TEXT, TextConfig
from ..errors import UserError
from ..storage.data_files import Bounds, read_dataclass
from ..storage.files import training_config_folder


@dataclass(frozen=True)
class TrainingConfig:
    """One run: which part of which version is trained, on what, for how long.

    part: `decoder` (the image decoder, for an encoder that is set in closed form), `autoencoder` (the same, but the
        decoder too starts from what a closed form gives), `temporal_decoder` (the temporal
        layers of the video decoder, on clips), `image_tower` (CLIP's, on pictures and the camera motion that follows
        from each), `unet` (on the latents of clips), `unet_and_image_tower` (both, on the same) or `text_adapter`
        (the encoder of prompts and the UNet's attention to it, beside a version's own weights, on the same).
    data: `stills`, `varied_stills` (pieces of pictures of 320x192), `first_frames` (of scenes), `scenes`,
        `prompted_scenes` (in the version's shape, with captions) or `orbits`.
    start_from: a checkpoint to initialize tensors of the same name and shape from; empty for none.
    size: side of the training pictures in pixels, or the height of those that have the version's shape.
    num_clips: the number of distinct clips (or stills).
    speed: how many times faster than their motion_bucket_id says the scenes move; larger motions than those asked for
        teach more.
    latent_error: the largest standard deviation of the errors added to the latents that a decoder learns from.
    frames_per_clip: how many frames of a clip the UNet sees in a step; the other parts see all of them.
    log_sigma_mean, log_sigma_std: of the log-normal noise levels that the UNet is trained at.
    text: how a text adapter is built.
    sheet_every: steps between sample sheets and saved states.
    """

    version: str
    part: Literal[
        "autoencoder", "decoder", "temporal_decoder", "image_tower", "unet", "unet_and_image_tower", "text_adapter"
    ]
    data: Literal["stills", "varied_stills", "first_frames", "scenes", "prompted_scenes", "orbits"]
    start_from: str
    size: Annotated[int, Bounds(8, 8192)]
    num_clips: Annotated[int, Bounds(1, 2**31)]
    speed: Annotated[float, Bounds(0, 100)]
    latent_error: Annotated[float, Bounds(0, 100)]
    frames_per_clip: Annotated[int, Bounds(1, 1024)]
    steps: Annotated[int, Bounds(1, 10**9)]
    batch_size: Annotated[int, Bounds(1, 4096)]
    learning_rate: Annotated[float, Bounds(0, 1)]
    log_sigma_mean: Annotated[float, Bounds(-20, 20)]
    log_sigma_std: Annotated[float, Bounds(0, 20)]
    seed: Annotated[int, Bounds(0, 2**31)]
    sheet_every: Annotated[int, Bounds(1, 10**9)]
    text: TextConfig = NO_TEXT


def find_training_config(named: Path) -> Path:
    """The named file, or the bundled configuration of that name. Raises UserError if there is neither."""
    bundled = {path.stem: path for path in sorted(training_config_folder().glob("*.yaml"))}
    if named.is_file():
        return named
    if str(named) in bundled:
        return bundled[str(named)]
    raise UserError(f"no training configuration {named}: give a YAML file, or one of {', '.join(bundled)}")


def load_training_config(path: Path) -> TrainingConfig:
    """The run that a YAML file describes; UserError names an unknown or missing key or a wrong value."""
    config: TrainingConfig = read_dataclass(TrainingConfig, path)
    return config
