"""A loaded model as plain functions from arrays to arrays, before the watermark and without rounding to 8 bits."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import GuidanceConfig
from ..generation.pipeline import Pipeline
from ..metrics.likeness import Pictures
from ..parameters.sampling import SamplingParameters
from ..stages import Stages


class Generate(Protocol):
    """Anything that makes clips: a model, or the ground truth in its place."""

    def __call__(self, picture: Pictures, **sampling: Any) -> Pictures:
        """A clip (T, H, W, 3) of a picture (H, W, 3), both in [0, 1], given fields of `SamplingParameters`."""


def generate(pipeline: Pipeline, picture: Pictures, **sampling: Any) -> Pictures:
    """The model's clip: see `Generate`. The picture must have a size that the model supports."""
    settings = SamplingParameters(**sampling).resolved_for(pipeline.config)
    frames = pipeline.generator.generate(_to_tensor(picture[None]), settings, Stages(str(pipeline.device)))
    return _to_array(frames)


def with_guidance(pipeline: Pipeline, guidance: GuidanceConfig) -> Pipeline:
    """The same weights with other guidance."""
    model = copy.copy(pipeline.generator.model)
    model.config = replace(pipeline.config, guidance=guidance)
    return replace(pipeline, generator=replace(pipeline.generator, model=model))


@torch.inference_mode()
def reconstruct(pipeline: Pipeline, frames: Pictures) -> Pictures:
    """A clip (T, H, W, 3) in [0, 1] after the model's autoencoder: the best that the model could make."""
    model = pipeline.generator.model
    latents = model.conditioner.vae.encode(_to_tensor(frames).to(pipeline.device)) * model.config.vae.scale_factor
    chunks = latents.split(SamplingParameters().decoding_t)
    decoded = torch.cat([model.first_stage.decode(chunk, len(chunk)) for chunk in chunks])
    return _to_array(((decoded + 1) / 2).clamp(0, 1))


def unit_range(pixels: NDArray[np.uint8]) -> Pictures:
    """Pixels from 0 to 255 -> [0, 1]."""
    return pixels.astype(np.float32) / np.float32(255)


def _to_tensor(pictures: Pictures) -> torch.Tensor:
    """(n, H, W, 3) in [0, 1] -> (n, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures * 2 - 1).permute(0, 3, 1, 2).contiguous()


def _to_array(frames: torch.Tensor) -> Pictures:
    """(t, 3, H, W) -> (t, H, W, 3)."""
    array: Pictures = frames.permute(0, 2, 3, 1).float().cpu().contiguous().numpy()
    return array
