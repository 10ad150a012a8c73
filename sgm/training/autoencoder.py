"""Training of the autoencoder: first encoder and decoder on stills, then the decoder's temporal layers on clips."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..models.layers import FrameConv, TimestepResBlock
from ..models.vae import AttentionBlock, ResBlock
from ..models.video_model import VideoModel
from .config import TrainingConfig
from .pictures import to_tensor, training_clip
from .start import zero

KL_WEIGHT = 1e-4  # keeps the latents compact, at a cost far below the reconstruction's error
START_LOG_VARIANCE = -6.0


class AutoencoderObjective:
    """Mean absolute error of the reconstruction, and the latents' divergence from a unit Gaussian.

    With `part: temporal_decoder` only the temporal layers of the video decoder learn.
    """

    def __init__(self, model: VideoModel, config: TrainingConfig, device: torch.device):
        self.model, self.config, self.device = model, config, device
        model.requires_grad_(False)
        if config.part == "autoencoder":
            model.conditioner.vae.requires_grad_(True)
        for name, parameter in model.first_stage.named_parameters():
            parameter.requires_grad_(config.part == "autoencoder" or "time_" in name or "mix_factor" in name)

    def __call__(self, step: int) -> Tensor:
        """The loss of a step, a scalar."""
        pictures = self.pictures(step)
        generator = torch.Generator(self.device).manual_seed(self.config.seed * 2**32 + step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            mean, log_variance = self.model.conditioner.vae.moments(pictures)
            noise = torch.randn(mean.shape, generator=generator, device=self.device)
            reconstruction = self.decode(mean + noise * (log_variance / 2).exp())
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return (reconstruction - pictures).abs().mean() + KL_WEIGHT * divergence

    def pictures(self, step: int) -> Tensor:
        """The frames of the step's stills or clips, (n, 3, size, size) in [-1, 1]."""
        config = self.config
        rng = np.random.Generator(np.random.PCG64([config.seed, step]))
        clips = [
            training_clip(config.data, int(number), config.size, self.model.config, config.seed).frames
            for number in rng.integers(config.num_clips, size=config.batch_size)
        ]
        return to_tensor(np.concatenate(clips)).to(self.device)

    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled latents of the batch's clips -> pictures (n, 3, size, size)."""
        first_stage = self.model.first_stage
        return first_stage.decode(latents * first_stage.scale_factor, len(latents) // self.config.batch_size)

    @torch.no_grad()
    def sheet(self, step: int) -> Tensor:
        """Pictures in the first row, their reconstructions in the second: (2, n, 3, size, size) in [-1, 1]."""
        pictures = self.pictures(step)
        return torch.stack([pictures, self.decode(self.model.conditioner.vae.encode(pictures))])

    @torch.no_grad()
    def finish(self) -> None:
        """Gives each latent channel unit variance, exactly: what the encoder's last layer loses, the decoder's first
        one gains. The UNet then sees latents of the scale that it sees noise at.
        """
        if self.config.part != "autoencoder":
            return
        vae, decoder = self.model.conditioner.vae, self.model.first_stage.decoder
        assert vae.quant_conv is not None
        assert decoder is not None
        assert self.model.first_stage.post_quant_conv is None
        latents = torch.cat([vae.encode(self.pictures(step)) for step in range(1, 33)])
        deviation = latents.std(dim=(0, 2, 3))
        channels = len(deviation)
        assert vae.quant_conv.bias is not None
        vae.quant_conv.weight[:channels] /= deviation[:, None, None, None]
        vae.quant_conv.bias[:channels] /= deviation
        vae.quant_conv.bias[channels:] -= 2 * deviation.log()
        decoder.conv_in.weight *= deviation[:, None, None]


def start_autoencoder(model: VideoModel) -> None:
    """Silences every residual branch and all but the latents' means, so that the first steps learn the means."""
    for module in model.modules():
        if isinstance(module, ResBlock):
            zero(module.conv2)
        elif isinstance(module, AttentionBlock):
            zero(module.proj_out)
    quant_conv = model.conditioner.vae.quant_conv
    assert quant_conv is not None
    assert quant_conv.bias is not None
    _, log_variance_weight = quant_conv.weight.data.chunk(2)
    _, log_variance_bias = quant_conv.bias.data.chunk(2)
    log_variance_weight.zero_()
    log_variance_bias.fill_(START_LOG_VARIANCE)


def start_temporal_layers_as_identity(decoder: nn.Module) -> None:
    """Makes a video decoder with an image decoder's weights give what the image decoder gives, before training."""
    for module in decoder.modules():
        if isinstance(module, TimestepResBlock):
            zero(module.out_layers[-1])
        elif isinstance(module, FrameConv) and module.in_channels == 3:
            zero(module)
            nn.init.dirac_(module.weight)
