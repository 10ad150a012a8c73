"""Classifier-free guidance with a scale of its own for each frame."""

import torch
from einops import rearrange
from torch import Tensor

from ..config import GuidanceConfig


def guidance_scales(config: GuidanceConfig, num_frames: int) -> Tensor:
    """The guidance scale of each frame, float32 (num_frames,).

    Linear goes from min to max. The triangle rises to max at the middle and falls back; an even number of frames has
    no middle frame, so there it stays below max.
    """
    if config.shape == "linear":
        return torch.linspace(config.min_scale, config.max_scale, num_frames)
    position = torch.linspace(0, 1, num_frames)
    rise = 2 * (position - (position + 0.5).floor()).abs()
    return config.min_scale + (config.max_scale - config.min_scale) * rise


def clips_a_step(config: GuidanceConfig) -> int:
    """How many predictions a step takes for a clip: the two of guidance, or one where every scale is 1."""
    return 1 if config.min_scale == config.max_scale == 1 else 2


def guide(unconditional: Tensor, conditional: Tensor, scales: Tensor) -> Tensor:
    """unconditional + scale * (conditional - unconditional), for t c h w and one scale a frame, (t,)."""
    return unconditional + rearrange(scales, "t -> t 1 1 1") * (conditional - unconditional)
