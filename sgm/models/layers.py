"""Layers that the UNet and the autoencoder share.

Shapes are written as einops writes them: `b` clips, `t` frames, `c` channels, `h` height, `w` width; `n` is any batch.
Frames travel as `(b t) c h w` in channels-last memory: then tokens `(b t) (h w) c` and clips `b c t (h w)` are views of
the same memory, and a convolution over frames is a 2-D one over t and (h w). What becomes a view for a convolution is
transposed last: a reshape would give an axis of length 1, as of a single clip, a stride by which torch no longer
recognises channels-last memory, and the convolution would copy.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def sinusoid(values: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of any numbers, (n,) -> (n, width) float32: cosines first, then sines.

    Frequencies fall from 1 to almost 1/10000 (arXiv:1706.03762). It serves noise levels, scalars and frame numbers.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=values.device) / half)
    angles = values.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def frames_to_clips(x: Tensor, num_frames: int) -> Tensor:
    """(b t) c h w -> b c t (h w), a view in channels-last memory."""
    by_clip = rearrange(x, "(b t) c h w -> b t (h w) c", t=num_frames)
    return rearrange(by_clip, "b t s c -> b c t s")


def clips_to_frames(x: Tensor, height: int) -> Tensor:
    """B c t (h w) -> (b t) c h w, a view in channels-last memory."""
    by_frame = rearrange(x, "b c t (h w) -> (b t) h w c", h=height)
    return rearrange(by_frame, "n h w c -> n c h w")


class FrameConv(nn.Conv3d):
    """A convolution over three neighbouring frames, kernel (3, 1, 1), on clips b c t (h w).

    It keeps the five-dimensional weight of the released checkpoints and runs as the 2-D convolution that it is.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=(3, 1, 1), padding=(1, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        """B c t (h w) -> b c' t (h w)."""
        return F.conv2d(x, self.weight.squeeze(-1), self.bias, padding=(1, 0))


class TimestepResBlock(nn.Module):
    """Residual block whose second half is shifted by an embedding, if it has one.

    Spatial (a 3x3 convolution on frames) or temporal (over frames, on clips), by the `conv` that is given.
    """

    def __init__(
        self, conv: type[nn.Module], in_channels: int, out_channels: int, emb_channels: int | None, norm_groups: int
    ):
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(norm_groups, in_channels, eps=1e-5), nn.SiLU(), conv(in_channels, out_channels)
        )
        if emb_channels is not None:
            self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, out_channels))
        # Index 2 was a dropout in training; the released keys count it.
        self.out_layers = nn.Sequential(
            nn.GroupNorm(norm_groups, out_channels, eps=1e-5),
            nn.SiLU(),
            nn.Identity(),
            conv(out_channels, out_channels),
        )
        self.skip_connection: nn.Module = (
            nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """X and the result are (b t) c h w or b c t (h w); `shift`, broadcastable, is added between the halves."""
        hidden = self.in_layers(x)
        if shift is not None:
            hidden = hidden + shift
        return self.skip_connection(x) + self.out_layers(hidden)


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution that keeps the size."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1)


class Upsample(nn.Module):
    """Twice the size: nearest neighbour, then a 3x3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """N c h w -> n c 2h 2w."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
