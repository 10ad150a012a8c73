"""Layers that the UNet and the autoencoder share, and the transformer blocks over pixels and over frames.

Shapes are written as einops writes them: `b` clips, `t` frames, `c` channels, `h` height, `w` width; `n` is any batch.
Frames travel as `(b t) c h w` in channels-last memory: then tokens `(b t) (h w) c` and clips `b c t (h w)` are views of
the same memory, and a convolution over frames is a 2-D one over t and (h w). What becomes a view for a convolution is
transposed last: a reshape would give an axis of length 1, as of a single clip, a stride by which torch no longer
recognises channels-last memory, and the convolution would copy.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ..config import NO_TEXT, TextConfig
from .text import TextAttention

MAX_SEQUENCES = 2**16 - 1  # at once in CUDA's kernels (pytorch/pytorch#146704); pixels of a few clips are more


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


class Blend(nn.Module):
    """A learned mix of the spatial and the temporal path: a * spatial + (1 - a) * temporal, a = sigmoid(mix_factor)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.zeros(1))

    def forward(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        """Two tensors of one shape -> the same shape."""
        return torch.lerp(temporal, spatial, self.mix_factor.sigmoid().to(spatial.dtype))


class SelfAttention(nn.Module):
    """Multi-head self-attention over tokens (n, l, c)."""

    def __init__(self, channels: int, head_channels: int):
        super().__init__()
        self.head_channels = head_channels
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, l, c) -> (n, l, c)."""
        q, k, v = (
            rearrange(project(tokens), "n l (heads d) -> n heads l d", d=self.head_channels)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        return self.to_out(rearrange(attend(q, k, v), "n heads l d -> n l (heads d)"))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention (n, heads, l, d) -> (n, heads, l, d), of any number of sequences."""
    if len(q) <= MAX_SEQUENCES:
        return F.scaled_dot_product_attention(q, k, v)
    parts = zip(*(each.split(MAX_SEQUENCES) for each in (q, k, v)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*part) for part in parts])


class CrossAttention(nn.Module):
    """Multi-head cross-attention to a clip's context, the same for all of its frames and pixels.

    To a context of one token it is no attention at all: the softmax over a single key is 1 whatever the query, so the
    result is the projected value, equal for every query. The query's and the key's weights, which the released
    checkpoints hold, then have no influence, and sampling doesn't load them (see `is_used_when_sampling`).
    """

    def __init__(self, channels: int, context_dim: int, head_channels: int):
        super().__init__()
        self.head_channels = head_channels
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_dim, channels, bias=False)
        self.to_v = nn.Linear(context_dim, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, tokens: Tensor, norm: nn.LayerNorm, context: Tensor) -> Tensor:
        """Tokens (b t) s c, context (b, m, context_dim) -> (b t) s c, or (b t) 1 c for m = 1, to be added to tokens.

        norm: of the query's tokens.
        """
        frames = len(tokens) // len(context)
        if context.shape[1] == 1:
            return repeat(self.to_out(self.to_v(context)), "b 1 c -> (b t) 1 c", t=frames)
        q = rearrange(self.to_q(norm(tokens)), "(b t) s (n d) -> b n (t s) d", t=frames, d=self.head_channels)
        k, v = (
            rearrange(project(context), "b m (n d) -> b n m d", d=self.head_channels)
            for project in (self.to_k, self.to_v)
        )
        return self.to_out(rearrange(attend(q, k, v), "b n (t s) d -> (b t) s (n d)", t=frames))


class GatedProjection(nn.Module):
    """GEGLU (arXiv:2002.05202): one half of the projection, gated by the GELU of the other."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.proj = nn.Linear(in_channels, 2 * out_channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., in_channels) -> (..., out_channels)."""
        value, gate = self.proj(tokens).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Gated feed-forward, four times as wide inside.

    Each token is transformed by itself, and inside takes ten times its memory; with `tokens_at_once` set, only so many
    tokens go through at a time.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.tokens_at_once: int | None = None
        # Index 1 was a dropout in training; the released keys count it.
        self.net = nn.Sequential(
            GatedProjection(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, l, c) -> (n, l, c)."""
        if self.tokens_at_once is None:
            return self.net(tokens)
        result = torch.empty_like(tokens)
        every, made = (rearrange(each, "n l c -> (n l) c") for each in (tokens, result))  # views
        for start in range(0, len(every), self.tokens_at_once):
            some = slice(start, start + self.tokens_at_once)
            made[some] = self.net(every[some])
        return result


class SpatialBlock(nn.Module):
    """Transformer block over the pixels of each frame."""

    def __init__(self, channels: int, context_dim: int, head_channels: int):
        super().__init__()
        self.attn1 = SelfAttention(channels, head_channels)
        self.attn2 = CrossAttention(channels, context_dim, head_channels)
        self.ff = FeedForward(channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Tokens (b t) (h w) c, context (b, m, context_dim) -> (b t) (h w) c."""
        tokens = tokens + self.attn1(self.norm1(tokens))
        tokens = tokens + self.attn2(tokens, self.norm2, context)
        return tokens + self.ff(self.norm3(tokens))


class TemporalBlock(nn.Module):
    """Transformer block over the frames at each pixel, with a feed-forward before it as well."""

    def __init__(self, channels: int, context_dim: int, head_channels: int, text: TextConfig):
        super().__init__()
        self.attends_to_text = text.tokens > 0
        if self.attends_to_text:
            self.attn_text = TextAttention(channels, context_dim, text)
        self.norm_in = nn.LayerNorm(channels)
        self.ff_in = FeedForward(channels)
        self.attn1 = SelfAttention(channels, head_channels)
        self.attn2 = CrossAttention(channels, context_dim, head_channels)
        self.ff = FeedForward(channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, context: Tensor, num_frames: int) -> Tensor:
        """Tokens (b t) s c of s = h * w pixels, context (b, m, context_dim) -> (b t) s c."""
        pixels = tokens.shape[1]
        context, text = (context[:, :1], context[:, 1:]) if self.attends_to_text else (context, context[:, :0])
        tokens = tokens + self.ff_in(self.norm_in(tokens))
        by_pixel = rearrange(self.norm1(tokens), "(b t) s c -> (b s) t c", t=num_frames)
        tokens = tokens + rearrange(self.attn1(by_pixel), "(b s) t c -> (b t) s c", s=pixels)
        tokens = tokens + self.attn2(tokens, self.norm2, context)
        if text.shape[1] > 0:
            tokens = tokens + self.attn_text(tokens, text)
        return tokens + self.ff(self.norm3(tokens))


class SpatioTemporalTransformer(nn.Module):
    """One spatial and one temporal transformer block, blended, around a residual connection."""

    def __init__(
        self, channels: int, context_dim: int, head_channels: int, norm_groups: int, text: TextConfig = NO_TEXT
    ):
        super().__init__()
        self.channels = channels
        self.norm = nn.GroupNorm(norm_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([SpatialBlock(channels, context_dim, head_channels)])
        self.time_stack = nn.ModuleList([TemporalBlock(channels, context_dim, head_channels, text)])
        self.time_pos_embed = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, channels)
        )
        self.time_mixer = Blend()
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor, num_frames: int) -> Tensor:
        """X (b t) c h w, context (b, m, context_dim) -> (b t) c h w."""
        num_clips, height = len(x) // num_frames, x.shape[2]
        tokens = self.proj_in(rearrange(self.norm(x), "n c h w -> n (h w) c"))
        of_image = context[:, :1] if self.time_stack[0].attends_to_text else context
        spatial = self.transformer_blocks[0](tokens, of_image)
        frame_numbers = sinusoid(torch.arange(num_frames, device=x.device), self.channels).to(x.dtype)
        positions = repeat(self.time_pos_embed(frame_numbers), "t c -> (b t) 1 c", b=num_clips)
        temporal = self.time_stack[0](spatial + positions, context, num_frames)
        tokens = self.proj_out(self.time_mixer(spatial, temporal))
        return x + rearrange(tokens, "n (h w) c -> n c h w", h=height)
