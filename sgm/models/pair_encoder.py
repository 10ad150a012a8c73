"""What two frames show and how it moves: the encoder of EMA-VFI (Zhang et al. 2023, arXiv:2303.00440).

Both frames go through the same layers, side by side in the batch: `n` is twice the number of pairs, the first frames
before the second ones. In the transformer's blocks each frame attends to the other one. Where it finds what it sees
says how that moves: the expected place there, less the own place. Attribute names are those of the released files.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from .layers import Conv3x3

WINDOW, SHIFT = 7, 3  # tokens; odd blocks are shifted
HEAD_CHANNELS = 32
APART = -100.0  # added to the scores of tokens that must not see each other


class PairFeatures(NamedTuple):
    """Of pairs (b) of frames, at 1/2^k of their size for level k.

    appearance: (2b c h w) of levels 0 to 4. motion: (2b c h w) of levels 3 and 4, from each frame to the other.
    """

    appearance: tuple[Tensor, ...]
    motion: tuple[Tensor, ...]


class PairEncoder(nn.Module):
    """Three levels of convolutions, then two of transformer blocks; level k has `channels` * 2^k channels."""

    def __init__(self, channels: int, depths: tuple[int, int, int, int, int]):
        super().__init__()
        widths = [channels * 2**level for level in range(5)]
        self.block1 = ConvStack(3, widths[0], depths[0])
        self.patch_embed2 = halving(widths[0], widths[1])
        self.block2 = ConvStack(widths[1], widths[1], depths[1])
        self.patch_embed3 = halving(widths[1], widths[2])
        self.block3 = ConvStack(widths[2], widths[2], depths[2])
        self.patch_embed4 = CrossScaleEmbedding(widths[:3], widths[3])
        self.block4 = _blocks(widths[3], depths[3])
        self.norm4 = nn.LayerNorm(widths[3], eps=1e-6)
        self.patch_embed5 = HalvingEmbedding(widths[3], widths[4])
        self.block5 = _blocks(widths[4], depths[4])
        self.norm5 = nn.LayerNorm(widths[4], eps=1e-6)

    def forward(self, frames: Tensor) -> PairFeatures:
        """Frames (2b 3 H W), H and W divisible by 16."""
        level0 = self.block1(frames)
        level1 = self.block2(self.patch_embed2(level0))
        level2 = self.block3(self.patch_embed3(level1))
        level3, motion3 = _transformed(self.patch_embed4((level0, level1, level2)), self.block4, self.norm4)
        level4, motion4 = _transformed(self.patch_embed5(level3), self.block5, self.norm5)
        return PairFeatures((level0, level1, level2, level3, level4), (motion3, motion4))


def _blocks(channels: int, depth: int) -> nn.ModuleList:
    """Blocks whose motions, side by side, have as many channels as the appearance."""
    return nn.ModuleList(Block(channels, channels // depth, shift=SHIFT * (number % 2)) for number in range(depth))


def _transformed(tokens: Tensor, blocks: nn.ModuleList, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Appearance and the motion that all blocks found, n c h w, of tokens n h w c."""
    motions = []
    for block in blocks:
        tokens, motion = block(tokens)
        motions.append(motion)
    appearance = rearrange(norm(tokens), "n h w c -> n c h w")
    return appearance, rearrange(torch.cat(motions, dim=-1), "n h w c -> n c h w")


def halving(in_channels: int, out_channels: int) -> nn.Sequential:
    """Half the size, by a convolution."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1), nn.PReLU(out_channels))


class ConvStack(nn.Module):
    """Convolutions that keep the size."""

    def __init__(self, in_channels: int, out_channels: int, depth: int):
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(depth):
            layers += [Conv3x3(out_channels if number else in_channels, out_channels), nn.PReLU(out_channels)]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """N c h w -> n c' h w."""
        return self.conv(x)


class CrossScaleEmbedding(nn.Module):
    """Tokens at half the size of the last of three levels, from all of them, each seen at several distances."""

    def __init__(self, widths: list[int], out_channels: int):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(width, widths[0], 3, stride=2 ** (number + 1), padding=reach, dilation=reach)
            for number, width in enumerate(reversed(widths))
            for reach in range(1, 2**number + 1)
        )
        self.proj = nn.Conv2d(widths[0] * len(self.layers), out_channels, 1)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, levels: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Maps n c h w, each half the size of the one before it -> n h w c."""
        seen_by = [level for number, level in enumerate(reversed(levels)) for _ in range(2**number)]
        seen = [layer(level) for layer, level in zip(self.layers, seen_by, strict=True)]
        return self.norm(rearrange(self.proj(torch.cat(seen, dim=1)), "n c h w -> n h w c"))


class HalvingEmbedding(nn.Module):
    """Tokens at half the size of a map."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """N c h w -> n h w c."""
        return self.norm(rearrange(self.proj(x), "n c h w -> n h w c"))


class Block(nn.Module):
    """Attention to the other frame within windows, then a feed-forward layer that sees the neighbours."""

    def __init__(self, channels: int, motion_channels: int, shift: int):
        super().__init__()
        self.shift = shift
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = InterFrameAttention(channels, motion_channels)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = NeighbourFeedForward(channels)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens n h w c -> the same, and the motion n h w c'."""
        _, height, width, _ = tokens.shape
        grid = WindowGrid(height, width, self.shift)
        places = coordinates(tokens)
        own = self.norm1(grid.cut(tokens))
        other = torch.cat(own.chunk(2)[::-1])
        seen, motion = self.attn(own, other, grid.cut(places), grid.scores_to_add(tokens))
        tokens, motion = grid.join(own + seen), grid.join(motion)  # the residual is the normalised input
        return tokens + self.mlp(self.norm2(tokens)), motion


def coordinates(tokens: Tensor) -> Tensor:
    """The place of each token, x then y from -1 to 1: (1 h w 2) for tokens n h w c."""
    y, x = (torch.linspace(-1, 1, side, device=tokens.device, dtype=tokens.dtype) for side in tokens.shape[1:3])
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]


class WindowGrid:
    """How a map of tokens is cut into windows: padded with zeros on all sides to whole windows, and perhaps shifted."""

    def __init__(self, height: int, width: int, shift: int):
        self.size, self.shift = (height, width), shift
        self.padded = [-(-side // WINDOW) * WINDOW for side in self.size]
        self.before = [(whole - side) // 2 for whole, side in zip(self.padded, self.size, strict=True)]

    def cut(self, tokens: Tensor) -> Tensor:
        """N h w c -> (n windows) tokens c."""
        (top, left), (height, width) = self.before, self.size
        below, right = self.padded[0] - height - top, self.padded[1] - width - left
        padded = F.pad(tokens, (0, 0, left, right, top, below))
        return self._windows(padded.roll((-self.shift, -self.shift), dims=(1, 2)) if self.shift else padded)

    def join(self, windows: Tensor) -> Tensor:
        """The inverse of `cut`."""
        rows, columns = (whole // WINDOW for whole in self.padded)
        joined = rearrange(windows, "(n i j) (p q) c -> n (i p) (j q) c", i=rows, j=columns, p=WINDOW)
        if self.shift:
            joined = joined.roll((self.shift, self.shift), dims=(1, 2))
        (top, left), (height, width) = self.before, self.size
        return joined[:, top : top + height, left : left + width]

    def scores_to_add(self, like: Tensor) -> Tensor | None:
        """(windows, tokens, tokens): keeps apart, within a window, what padding or the shift has put side by side.

        The padding's part is not shifted along with the tokens. So it is in the released code, with which the weights
        were trained; it matters wherever there is padding, as at 1280x720.
        """
        scores = None
        if self.padded != list(self.size):
            edges = [(start, start + side) for start, side in zip(self.before, self.size, strict=True)]
            scores = self._apart(edges, like)
        if self.shift:
            edges = [(whole - WINDOW, whole - self.shift) for whole in self.padded]
            of_shift = self._apart(edges, like)
            scores = of_shift if scores is None else scores + of_shift
        return scores

    def _apart(self, edges: list[tuple[int, int]], like: Tensor) -> Tensor:
        """Scores between tokens of different ones of nine regions, which two edges on each axis divide."""
        rows, columns = (
            torch.bucketize(torch.arange(whole, device=like.device), torch.tensor(both, device=like.device), right=True)
            for whole, both in zip(self.padded, edges, strict=True)
        )
        regions = self._windows((3 * rows[:, None] + columns)[None, :, :, None])[..., 0]
        return (regions[:, :, None] != regions[:, None, :]).to(like.dtype) * APART

    @staticmethod
    def _windows(tokens: Tensor) -> Tensor:
        return rearrange(tokens, "n (i p) (j q) c -> (n i j) (p q) c", p=WINDOW, q=WINDOW)


class InterFrameAttention(nn.Module):
    """Multi-head attention of a window's tokens to the same window of the other frame; what they see, and where."""

    def __init__(self, channels: int, motion_channels: int):
        super().__init__()
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.cor_embed = nn.Linear(2, motion_channels)
        self.proj = nn.Linear(channels, channels)
        self.motion_proj = nn.Linear(motion_channels, motion_channels)

    def forward(self, own: Tensor, other: Tensor, places: Tensor, scores: Tensor | None) -> tuple[Tensor, Tensor]:
        """Appearance (m l c) and motion (m l c'), of tokens (m l c), m windows of all frames.

        places: (windows l 2) of the tokens of one frame, for all frames alike. scores: to be added, (windows l l).
        """
        frames = len(own) // len(places)
        here = repeat(self.cor_embed(places), "w l c -> (n w) l c", n=frames)
        heads = own.shape[-1] // HEAD_CHANNELS
        keys, values = self.kv(other).chunk(2, dim=-1)
        q, k, v, there = (
            rearrange(each, "m l (heads d) -> m heads l d", heads=heads) for each in (self.q(own), keys, values, here)
        )
        mask = None if scores is None else repeat(scores, "w l k -> (n w) 1 l k", n=frames)
        # One attention serves both: the places are looked up with the same weights as the values.
        found = F.scaled_dot_product_attention(q, k, torch.cat([v, there], dim=-1), attn_mask=mask)
        seen, moved_to = (
            rearrange(each, "m heads l d -> m l (heads d)")
            for each in found.split((HEAD_CHANNELS, there.shape[-1]), dim=-1)
        )
        return self.proj(seen), self.motion_proj(moved_to - here)


class NeighbourFeedForward(nn.Module):
    """Feed-forward layer, four times as wide inside, where each channel is convolved with its neighbourhood."""

    def __init__(self, channels: int):
        super().__init__()
        inner = 4 * channels
        self.fc1 = nn.Linear(channels, inner)
        self.dwconv = nn.ModuleDict({"dwconv": nn.Conv2d(inner, inner, 3, padding=1, groups=inner)})
        self.fc2 = nn.Linear(inner, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """N h w c -> n h w c."""
        hidden = rearrange(self.fc1(tokens), "n h w c -> n c h w")
        hidden = rearrange(self.dwconv["dwconv"](hidden), "n c h w -> n h w c")
        return self.fc2(F.gelu(hidden))
