"""Training of the decoder: first the image decoder on stills, then the video decoder's temporal layers on clips."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..data.clips import to_tensor, training_clip
from ..models.layers import FrameConv, TimestepResBlock
from ..models.vae import AttentionBlock, Decoder, ResBlock, is_temporal
from ..models.video_model import VideoModel
from .config import TrainingConfig
from .decoder_start import hold_places
from .initialization import zero


class DecoderObjective:
    """Mean absolute error of the pictures that the fixed encoder's latents decode to.

    With `part: temporal_decoder` only the temporal layers learn. `latent_error` teaches them to steady what the UNet,
    whose latents they will decode, draws slightly differently from frame to frame.
    """

    def __init__(self, model: VideoModel, config: TrainingConfig, device: torch.device):
        self.model, self.config, self.device = model, config, device
        model.requires_grad_(False)
        for name, parameter in model.first_stage.named_parameters():
            parameter.requires_grad_(config.part != "temporal_decoder" or is_temporal(name))
        hold_places(model.first_stage)

    def __call__(self, step: int) -> Tensor:
        """The loss of a step, a scalar."""
        pictures = self.pictures(step)
        # On a CPU bfloat16 gains nothing here: these convolutions have few channels.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            reconstruction = self.reconstruct(pictures, step)
        return (reconstruction - pictures).abs().mean()

    def pictures(self, step: int) -> Tensor:
        """The frames of the step's stills or clips, (n, 3, size, size) in [-1, 1]."""
        config = self.config
        rng = np.random.Generator(np.random.PCG64([config.seed, step]))
        clips = [
            training_clip(config.data, int(number), config.size, self.model.config, config.seed).frames
            for number in rng.integers(config.num_clips, size=config.batch_size)
        ]
        return to_tensor(np.concatenate(clips)).to(self.device)

    def reconstruct(self, pictures: Tensor, step: int) -> Tensor:
        """The batch's pictures after encoder and decoder, with the step's latent errors added in between."""
        first_stage = self.model.first_stage
        with torch.no_grad():
            latents = self.model.conditioner.vae.encode(pictures) * first_stage.scale_factor
            latents += self.latent_errors(latents.shape, step)
        # Nothing uses the latents' gradient, but torch 2.13's group normalisation in channels-last memory crashes on
        # the CPU if its weight has a gradient and its input doesn't, as in a temporal layer after frozen spatial ones.
        latents.requires_grad_(torch.is_grad_enabled())
        return first_stage.decode(latents, len(pictures) // self.config.batch_size)

    def latent_errors(self, shape: torch.Size, step: int) -> Tensor:
        """Errors to add to the batch's latents (n, c, h, w): noise, and an offset for each channel of each frame.

        Both have the same standard deviation; each clip draws its own, from 0 to `latent_error`.
        """
        generator = torch.Generator().manual_seed(self.config.seed * 2**32 + step)
        noise, offsets = torch.randn(shape, generator=generator), torch.randn((*shape[:2], 1, 1), generator=generator)
        strengths = self.config.latent_error * torch.rand(self.config.batch_size, generator=generator)
        of_frames = strengths.repeat_interleave(shape[0] // self.config.batch_size)
        return (of_frames[:, None, None, None] * (noise + offsets)).to(self.device)

    @torch.no_grad()
    def sheet(self) -> Tensor:
        """Pictures in the first row, their reconstructions in the second: (2, n, 3, size, size) in [-1, 1]."""
        pictures = self.pictures(0)
        return torch.stack([pictures, self.reconstruct(pictures, 0)])


def start_decoder(decoder: Decoder) -> None:
    """Zero the residual branches and a video decoder's temporal ones, so that it starts as its image decoder."""
    for module in decoder.modules():
        if isinstance(module, ResBlock):
            zero(module.conv2)
        elif isinstance(module, AttentionBlock):
            zero(module.proj_out)
        elif isinstance(module, TimestepResBlock):
            zero(module.out_layers[-1])
        elif isinstance(module, FrameConv) and module.in_channels == 3:
            zero(module)
            nn.init.dirac_(module.weight)
