"""The decoder on clips of any length, in little memory, with the result of decoding all frames at once.

Most of the temporal decoder looks at each frame by itself. The rest, its temporal layers, looks at each pixel by
itself, but for the mean and variance of its normalisations. So the clip goes through it layer by layer, a few frames
at a time or a few rows of all frames at a time. Between layers it may be kept in another memory than it is computed
in: one activation of each frame, not more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from .layers import FrameConv, clips_to_frames, frames_to_clips
from .vae import Autoencoder, FinalConv, ResBlock, TemporalResBlock, run_layer, silu


def decode_streaming(
    autoencoder: Autoencoder, latents: Tensor, at_once: int, keep_on: torch.device | str | None = None
) -> Tensor:
    """Images (t, 3, H, W), about [-1, 1], of one clip's scaled latents (t, c, h, w): those of `Autoencoder.decode`.

    The only difference is the rounding of the normalisations' statistics.

    Args:
        autoencoder: its temporal decoder, or its image decoder, which sees each frame by itself, is used.
        latents: on the decoder's device.
        at_once: how many frames, or as many pixels of all frames, to compute at a time.
        keep_on: where the clip is kept between layers and the images are returned; by default on the decoder's device.
    """
    decoder = autoencoder.decoder
    assert decoder is not None
    clip = _Clip(latents, at_once, torch.device(keep_on or latents.device))
    clip.replace_frames(lambda frames: decoder.conv_in(autoencoder.unscale(frames)))
    for layer in decoder.layers():
        if isinstance(layer, TemporalResBlock):
            clip.replace_frames(lambda frames, block=layer: ResBlock.forward(block, frames, len(frames)))  # type: ignore[misc]
            _blend_over_frames(layer, clip)
        else:
            clip.replace_frames(lambda frames, layer=layer: run_layer(layer, frames, len(frames)))  # type: ignore[misc]
    last = decoder.conv_out
    if isinstance(last, FinalConv):
        clip.replace_frames(lambda frames: last.over_pixels(silu(decoder.norm_out(frames))))
        clip.replace_rows(lambda strip: _over_frames(last.time_mix_conv, strip))
    else:
        clip.replace_frames(lambda frames: last(silu(decoder.norm_out(frames))))
    return torch.cat(clip.frames)


class _Clip:
    """The frames (1, c, h, w) of one clip, kept on one device and computed with on another."""

    def __init__(self, latents: Tensor, at_once: int, keep_on: torch.device):
        self.frames = list(latents.split(1))
        self.at_once, self.device, self.keep_on = at_once, latents.device, keep_on

    def replace_frames(self, function: Callable[[Tensor], Tensor]) -> None:
        """Put all frames through a function that looks at each by itself, `at_once` at a time."""
        for start in range(0, len(self.frames), self.at_once):
            frames = torch.cat(self.frames[start : start + self.at_once]).to(self.device)
            self.frames[start : start + self.at_once] = function(frames).to(self.keep_on).split(1)

    def strips(self) -> Iterator[tuple[slice, Tensor]]:
        """All rows of all frames in turn, each strip (t, c, rows, w) about as large as `at_once` frames."""
        height = self.frames[0].shape[2]
        rows_at_once = max(1, self.at_once * height // len(self.frames))
        for start in range(0, height, rows_at_once):
            rows = slice(start, start + rows_at_once)
            yield rows, torch.cat([frame[:, :, rows] for frame in self.frames]).to(self.device)

    def replace_rows(self, function: Callable[[Tensor], Tensor]) -> None:
        """Put all strips through a function that looks at each pixel by itself, and keeps the shape."""
        for rows, strip in self.strips():
            for frame, made in zip(self.frames, function(strip).to(self.keep_on), strict=True):
                frame[0, :, rows] = made


def _blend_over_frames(block: TemporalResBlock, clip: _Clip) -> None:
    """The temporal half of `TemporalResBlock.forward`, on a clip that has been through the spatial half.

    The first convolution over frames runs twice: its result is too large to keep, and the second norm needs statistics.
    """
    first_norm, _, first_conv = block.time_stack.in_layers
    second_norm, _, _, second_conv = block.time_stack.out_layers
    share = block.mix_factor.sigmoid()
    normalise_first = _normalisation(first_norm, (strip for _, strip in clip.strips()))

    def first_half(strip: Tensor) -> Tensor:
        return _over_frames(first_conv, silu(normalise_first(strip)))

    normalise_second = _normalisation(second_norm, (first_half(strip) for _, strip in clip.strips()))

    def blend(strip: Tensor) -> Tensor:
        temporal = strip + _over_frames(second_conv, silu(normalise_second(first_half(strip))))
        return torch.lerp(strip, temporal, share)

    clip.replace_rows(blend)


def _normalisation(norm: nn.Module, strips: Iterator[Tensor]) -> Callable[[Tensor], Tensor]:
    """A group normalisation over all pixels of all frames, as a function of some of them, n c h w -> n c h w."""
    assert isinstance(norm, nn.GroupNorm)
    # Every row of a frame has as many numbers, so the clip's mean is that of the rows' means, and its variance the mean
    # of theirs plus the variance of their means.
    by_group = (rearrange(strip, "t (groups c) h w -> t groups c h w", groups=norm.num_groups) for strip in strips)
    by_row = [torch.var_mean(strip, dim=(2, 4), correction=0) for strip in by_group]
    variances, means = (torch.cat(parts, dim=2) for parts in zip(*by_row, strict=True))  # (t, groups, h)
    mean = means.mean(dim=(0, 2))
    variance = variances.mean(dim=(0, 2)) + means.var(dim=(0, 2), correction=0)
    channels_a_group = norm.num_channels // norm.num_groups

    def by_channel(of_groups: Tensor) -> Tensor:
        return repeat(of_groups, "groups -> (groups c) 1 1", c=channels_a_group)

    weight, bias = (rearrange(parameter, "c -> c 1 1") for parameter in (norm.weight, norm.bias))
    scale = by_channel((variance + norm.eps).rsqrt()) * weight
    shift = bias - by_channel(mean) * scale
    return lambda strip: torch.addcmul(shift, strip, scale)


def _over_frames(conv: nn.Module, frames: Tensor) -> Tensor:
    """A convolution over the frames of one clip, n c h w -> n c' h w."""
    assert isinstance(conv, FrameConv)
    return clips_to_frames(conv(frames_to_clips(frames, len(frames))), frames.shape[2])
