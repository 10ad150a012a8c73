"""The autoencoder between pixels and latents: image encoder, image decoder, and the temporal decoder of SVD."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import VAEConfig
from .layers import Conv3x3, FrameConv, TimestepResBlock, Upsample, clips_to_frames, frames_to_clips


def _norm(groups: int, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


def silu(x: Tensor) -> Tensor:
    """SiLU, in place unless a gradient needs x, which the caller gives up: a third less memory at the peak."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class ResBlock(nn.Module):
    """Two normalised 3x3 convolutions around a residual connection."""

    def __init__(self, in_channels: int, out_channels: int, norm_groups: int):
        super().__init__()
        self.norm1 = _norm(norm_groups, in_channels)
        self.conv1 = Conv3x3(in_channels, out_channels)
        self.norm2 = _norm(norm_groups, out_channels)
        self.conv2 = Conv3x3(out_channels, out_channels)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """N c h w -> n c' h w; an image block ignores which frames belong together."""
        hidden = self.conv2(silu(self.norm2(self.conv1(silu(self.norm1(x))))))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + hidden


class TemporalResBlock(ResBlock):
    """A spatial block, a temporal one over its result, and a learned mix.

    The mix runs the opposite way to the UNet's: a * temporal + (1 - a) * spatial, a = sigmoid(mix_factor).
    """

    def __init__(self, in_channels: int, out_channels: int, norm_groups: int):
        super().__init__(in_channels, out_channels, norm_groups)
        self.time_stack = TimestepResBlock(FrameConv, out_channels, out_channels, None, norm_groups)
        self.mix_factor = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """(b t) c h w -> (b t) c' h w."""
        spatial = super().forward(x, num_frames)
        temporal = self.time_stack(frames_to_clips(spatial, num_frames))
        return torch.lerp(spatial, clips_to_frames(temporal, spatial.shape[2]), self.mix_factor.sigmoid())


class AttentionBlock(nn.Module):
    """Single-head self-attention over the pixels of each frame."""

    def __init__(self, channels: int, norm_groups: int):
        super().__init__()
        self.norm = _norm(norm_groups, channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """N c h w -> n c h w."""
        hidden = self.norm(x)
        # An axis for the one head: without it PyTorch takes the path that holds all scores at once.
        q, k, v = (rearrange(project(hidden), "n c h w -> n 1 (h w) c") for project in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(attended, "n 1 (h w) c -> n c h w", h=x.shape[2]))


class Middle(nn.Module):
    """The coarsest level's blocks, with attention between them, in the order of `layers`."""

    def __init__(self, channels: int, block: type[ResBlock], norm_groups: int):
        super().__init__()
        self.block_1 = block(channels, channels, norm_groups)
        self.attn_1 = AttentionBlock(channels, norm_groups)
        self.block_2 = block(channels, channels, norm_groups)

    def layers(self) -> Iterator[nn.Module]:
        """The layers in the order that they run in."""
        yield from (self.block_1, self.attn_1, self.block_2)


class Downsample(nn.Module):
    """Half the size by a 3x3 convolution of stride 2, padded at the right and the bottom only."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """N c 2h 2w -> n c h w."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    """The blocks of one resolution, and the step to the next one, if there is one (`downsample` or `upsample`)."""

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, block: type[ResBlock], norm_groups: int):
        super().__init__()
        self.block = nn.ModuleList(
            block(in_channels if index == 0 else out_channels, out_channels, norm_groups) for index in range(num_blocks)
        )
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None

    def layers(self) -> Iterator[nn.Module]:
        """The layers in the order that they run in."""
        yield from self.block
        yield from (step for step in (self.downsample, self.upsample) if step is not None)


def run_layer(layer: nn.Module, x: Tensor, num_frames: int) -> Tensor:
    """(b t) c h w -> (b t) c' h' w': only residual blocks need to know which frames belong together."""
    return layer(x, num_frames) if isinstance(layer, ResBlock) else layer(x)


class Encoder(nn.Module):
    """Image -> mean and log-variance of its latents."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths = [config.base_channels * mult for mult in config.channel_mult]
        self.conv_in = Conv3x3(3, widths[0])
        self.down = nn.ModuleList()
        channels = widths[0]
        for index, width in enumerate(widths):
            level = Level(channels, width, config.num_res_blocks, ResBlock, config.norm_groups)
            channels = width
            if index < len(widths) - 1:
                level.downsample = Downsample(channels)
            self.down.append(level)
        self.mid = Middle(channels, ResBlock, config.norm_groups)
        self.norm_out = _norm(config.norm_groups, channels)
        self.conv_out = Conv3x3(channels, 2 * config.latent_channels)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1] -> (n, 2 * latent_channels, h, w)."""
        x = self.conv_in(images.contiguous(memory_format=torch.channels_last))
        for stage in (*self.down, self.mid):
            for layer in stage.layers():
                x = run_layer(layer, x, num_frames=1)
        return self.conv_out(silu(self.norm_out(x)))


class Decoder(nn.Module):
    """Latents -> images; a temporal one sees the frames of a clip together."""

    def __init__(self, config: VAEConfig, temporal: bool):
        super().__init__()
        widths = [config.base_channels * mult for mult in config.channel_mult]
        block = TemporalResBlock if temporal else ResBlock
        channels = widths[-1]
        self.conv_in = Conv3x3(config.latent_channels, channels)
        self.mid = Middle(channels, block, config.norm_groups)
        levels = []
        for index, width in reversed(list(enumerate(widths))):
            level = Level(channels, width, config.num_res_blocks + 1, block, config.norm_groups)
            channels = width
            if index > 0:
                level.upsample = Upsample(channels)
            levels.append(level)
        self.up = nn.ModuleList(reversed(levels))  # numbered by resolution, finest first, as in the checkpoints
        self.norm_out = _norm(config.norm_groups, channels)
        self.conv_out = FinalConv(channels) if temporal else Conv3x3(channels, 3)

    def forward(self, latents: Tensor, num_frames: int) -> Tensor:
        """(b t, latent_channels, h, w) -> (b t, 3, H, W), about [-1, 1]; an image decoder ignores num_frames."""
        x = self.conv_in(latents.contiguous(memory_format=torch.channels_last))
        for layer in self.layers():
            x = run_layer(layer, x, num_frames)
        x = silu(self.norm_out(x))
        return self.conv_out(x, num_frames) if isinstance(self.conv_out, FinalConv) else self.conv_out(x)

    def layers(self) -> Iterator[nn.Module]:
        """What runs between the first convolution and the last normalisation, in order."""
        yield from self.mid.layers()
        for level in reversed(self.up):
            assert isinstance(level, Level)
            yield from level.layers()


class FinalConv(Conv3x3):
    """The temporal decoder's last convolutions: over pixels, then over frames."""

    def __init__(self, channels: int):
        super().__init__(channels, 3)
        self.time_mix_conv = FrameConv(3, 3)

    def over_pixels(self, x: Tensor) -> Tensor:
        """The first of the two, (b t) c h w -> (b t) 3 h w."""
        return super().forward(x)

    def forward(self, x: Tensor, num_frames: int) -> Tensor:  # type: ignore[override]
        """(b t) c h w -> (b t) 3 h w."""
        frames = self.over_pixels(x)
        return clips_to_frames(self.time_mix_conv(frames_to_clips(frames, num_frames)), frames.shape[2])


class Autoencoder(nn.Module):
    """Encoder, decoder and the 1x1 convolutions around the latents: those of them that a checkpoint holds."""

    def __init__(self, config: VAEConfig, *, encoder: bool, decoder: bool, quant_convs: bool, temporal: bool):
        super().__init__()
        channels = config.latent_channels
        self.scale_factor = config.scale_factor
        self.encoder = Encoder(config) if encoder else None
        self.decoder = Decoder(config, temporal) if decoder else None
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1) if quant_convs and encoder else None
        self.post_quant_conv = nn.Conv2d(channels, channels, 1) if quant_convs and decoder else None

    def encode(self, images: Tensor) -> Tensor:
        """The latents' mean, not scaled, (n, latent_channels, h, w), of images (n, 3, H, W) in [-1, 1]."""
        assert self.encoder is not None
        moments = self.encoder(images)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        return moments.chunk(2, dim=1)[0]  # the other half is the log-variance, which the released sampler ignores

    def decode(self, latents: Tensor, num_frames: int) -> Tensor:
        """Images (n, 3, H, W), about [-1, 1], of scaled latents (n, latent_channels, h, w), n = b * num_frames."""
        assert self.decoder is not None
        return self.decoder(self.unscale(latents), num_frames)

    def unscale(self, latents: Tensor) -> Tensor:
        """The decoder's own input for scaled latents (n, latent_channels, h, w)."""
        latents = latents / self.scale_factor
        return latents if self.post_quant_conv is None else self.post_quant_conv(latents)


def is_temporal(name: str) -> bool:
    """Whether the parameter of this name exists in the temporal decoder but not in the image decoder."""
    return "time_" in name or "mix_factor" in name
