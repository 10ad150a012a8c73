"""How many operations a clip takes, counted without computing it, and how many a device does per second at most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..config import ModelConfig
from ..diffusion.edm import clips_a_step
from ..models.video_model import empty_model
from .timing import measure_in_turn

CEILING_SIZE = {"cuda": 8192, "mps": 4096, "cpu": 1024}


@dataclass(frozen=True)
class Arithmetic:
    """Floating-point operations, a multiplication and an addition counting as two.

    unet_step: one call for both of guidance's clips, or for one where guidance has no effect; unet_cached_step: the
    same with the deep features kept. decoding: of all frames.
    """

    unet_step: int
    unet_cached_step: int
    decoding: int


def count(config: ModelConfig, num_frames: int, height: int, width: int, decoding_t: int) -> Arithmetic:
    """The operations of a clip of this size (pixels), counted on the meta device."""
    model = empty_model(config)
    clips = clips_a_step(config.guidance)
    height, width = height // config.latent_factor, width // config.latent_factor
    frames = clips * num_frames
    channels = config.vae.latent_channels

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device="meta")

    given = (
        empty(frames, 2 * channels, height, width),
        empty(frames),
        empty(clips, 1, config.unet.context_dim),
        empty(frames, config.vector_width),
        num_frames,
    )
    deep = empty(frames, config.unet.model_channels, height, width)
    counts = []
    works = (
        lambda: model.unet(*given),
        lambda: model.unet(*given, deep_features=lambda _: deep),
        lambda: [
            model.first_stage.decode(part, len(part))
            for part in empty(num_frames, channels, height, width).split(decoding_t)
        ],
    )
    for work in works:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            work()
        counts.append(counter.get_total_flops())
    return Arithmetic(*counts)


def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second in a large product of two square matrices: the most that can be hoped for."""
    size = CEILING_SIZE[device.type]
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    timing = measure_in_turn({"product": lambda: left @ right}, device, warmups=3, repeats=10)["product"]
    return 2 * size**3 / timing.median
