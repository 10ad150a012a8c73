"""The frames of one clip on several ranks: each has some of them through the whole UNet.

Most of the UNet looks at each frame by itself. What looks beyond is replaced here by layers that ask the other ranks:

- temporal attention: frames are exchanged for pixels before it and back after it (all-to-all), so that each rank
  attends over all frames at some of the pixels;
- the convolutions over three frames: one frame from each neighbour;
- the normalisations over frames: the mean and the variance of each rank's share.

The result is that of one process up to the rounding of sums. Tensors go directly from card to card (NCCL), and on a
processor through main memory (gloo).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ..errors import UserError
from ..models.layers import FrameConv, SelfAttention, SpatioTemporalTransformer, TemporalBlock, sinusoid
from ..models.unet import VideoResBlock, VideoUNet
from .parallel import Ranks

SECONDS_FOR_AN_EXCHANGE = 600


class FrameGroup:
    """The ranks that share a clip's frames, as one of them sees them: one of `num_groups` equal groups of all ranks.

    ranks: all of them. size, rank: how many the group has, and this one's number in it. sizes: how many frames of a
    clip each of them has (see `begin`). All ranks make theirs at once.
    """

    def __init__(self, ranks: Ranks, num_groups: int, device: torch.device):
        assert ranks.size % num_groups == 0
        self.ranks, self.size = ranks, ranks.size // num_groups
        self.number, self.rank = divmod(ranks.rank, self.size)
        self.sizes: list[int] = []
        if self.size == 1:
            return
        backend = "nccl" if device.type == "cuda" else "gloo"
        patience = timedelta(seconds=SECONDS_FOR_AN_EXCHANGE)
        for number in range(num_groups):  # every rank has to take part in making every group
            members = list(range(number * self.size, (number + 1) * self.size))
            group = dist.new_group(members, timeout=patience, backend=backend)
            if number == self.number:
                assert isinstance(group, dist.ProcessGroup)
                self._group = group

    @property
    def own(self) -> slice:
        """This rank's frames of a clip."""
        start = sum(self.sizes[: self.rank])
        return slice(start, start + self.sizes[self.rank])

    def check(self, num_frames: int) -> None:
        """Raise UserError if there are fewer frames than ranks."""
        if num_frames < self.size:
            raise UserError(f"{self.size} devices can't share so few frames ({num_frames}): give fewer devices")

    def begin(self, num_frames: int) -> None:
        """Share out so many frames, as evenly as possible: the first ranks have one more."""
        self.sizes = shares(num_frames, self.size)

    def own_frames(self, frames: Tensor) -> Tensor:
        """(b t) ... -> those of this rank."""
        clips = rearrange(frames, "(b t) ... -> b t ...", t=sum(self.sizes))
        return rearrange(clips[:, self.own], "b t ... -> (b t) ...")

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """All frames (b t) ... from each rank's."""
        clips = [rearrange(part, "(b t) ... -> b t ...", t=own) for part, own in zip(parts, self.sizes, strict=True)]
        return rearrange(torch.cat(clips, dim=1), "b t ... -> (b t) ...")

    def all_to_all(self, sent: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """What each rank has sent to this one, by rank, of these shapes; `sent` has a tensor for each."""
        counts = [torch.Size(shape).numel() for shape in shapes]
        flat = torch.cat([tensor.reshape(-1) for tensor in sent])
        received = flat.new_empty(sum(counts))
        dist.all_to_all_single(received, flat, counts, [tensor.numel() for tensor in sent], group=self._group)
        return [part.view(*shape) for part, shape in zip(received.split(counts), shapes, strict=True)]

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks, of one shape, stacked by rank."""
        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(gathered, tensor, group=self._group)
        return torch.stack(gathered)


def shares(count: int, size: int) -> list[int]:
    """A count in so many shares, as even as possible, the larger ones first."""
    return [count // size + (index < count % size) for index in range(size)]


def share_frames(unet: VideoUNet, group: FrameGroup) -> None:
    """From now on the UNet is called on each rank's own frames (see `FrameGroup.begin`), on all ranks at once."""
    for module in list(unet.modules()):
        if isinstance(module, VideoResBlock):
            for layers in (module.time_stack.in_layers, module.time_stack.out_layers):
                for index, layer in enumerate(layers):
                    if isinstance(layer, nn.GroupNorm):
                        layers[index] = NormOverRanks(layer, group)
                    elif isinstance(layer, FrameConv):
                        layers[index] = ConvOverRanks(layer, group)
        elif isinstance(module, SpatioTemporalTransformer):
            module.set_submodule("time_pos_embed", PositionsOfOwn(module.time_pos_embed, group))
        elif isinstance(module, TemporalBlock):
            module.set_submodule("attn1", AttentionOverRanks(module.attn1, group))


class NormOverRanks(nn.Module):
    """A group normalisation over all ranks' frames."""

    def __init__(self, norm: nn.GroupNorm, group: FrameGroup):
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.groups, self.eps, self.group = norm.num_groups, norm.eps, group

    def forward(self, x: Tensor) -> Tensor:
        """B c t s -> the same."""
        by_group = rearrange(x, "b (groups c) t s -> b groups c t s", groups=self.groups).float()
        of_rank = torch.stack(torch.var_mean(by_group, dim=(2, 3, 4), correction=0))
        variances, means = self.group.gather(of_rank).unbind(dim=1)  # each (rank, b, groups)
        share = torch.tensor(self.group.sizes, device=x.device).view(-1, 1, 1) / sum(self.group.sizes)
        mean = (share * means).sum(dim=0)
        variance = (share * (variances + (means - mean) ** 2)).sum(dim=0)
        channels = x.shape[1] // self.groups
        scale, middle = (
            repeat(values, "b groups -> b (groups c) 1 1", c=channels)
            for values in ((variance + self.eps).rsqrt(), mean)
        )
        weight, bias = (rearrange(parameter.float(), "c -> c 1 1") for parameter in (self.weight, self.bias))
        return torch.addcmul(bias - middle * scale * weight, x.float(), scale * weight).to(x.dtype)


class ConvOverRanks(nn.Module):
    """A convolution over three neighbouring frames, some of which other ranks have."""

    def __init__(self, conv: FrameConv, group: FrameGroup):
        super().__init__()
        self.weight, self.bias, self.group = conv.weight, conv.bias, group

    def forward(self, x: Tensor) -> Tensor:
        """B c t s -> b c' t s."""
        group, frame, nothing = self.group, (*x.shape[:2], 1, x.shape[3]), (0,)
        sent, shapes = [x.new_empty(0)] * group.size, [nothing] * group.size
        if not_first := group.rank > 0:
            sent[group.rank - 1], shapes[group.rank - 1] = x[:, :, :1], frame
        if not_last := group.rank < group.size - 1:
            sent[group.rank + 1], shapes[group.rank + 1] = x[:, :, -1:], frame
        received = group.all_to_all(sent, shapes)
        border = x.new_zeros(frame)
        before = received[group.rank - 1] if not_first else border
        after = received[group.rank + 1] if not_last else border
        with_neighbours = torch.cat([before, x, after], dim=2).contiguous(memory_format=torch.channels_last)
        return F.conv2d(with_neighbours, self.weight.squeeze(-1), self.bias)


class PositionsOfOwn(nn.Module):
    """The embedding of frame numbers, of this rank's frames."""

    def __init__(self, embedding: nn.Module, group: FrameGroup):
        super().__init__()
        self.embedding, self.group = embedding, group

    def forward(self, numbers: Tensor) -> Tensor:
        """The sinusoids of as many frames, counted from 0, (t, c) -> (t, c)."""
        own = torch.arange(self.group.own.start, self.group.own.stop, device=numbers.device)
        return self.embedding(sinusoid(own, numbers.shape[1]).to(numbers.dtype))


class AttentionOverRanks(nn.Module):
    """Attention over the frames of all ranks, each rank at some of the pixels."""

    def __init__(self, attention: SelfAttention, group: FrameGroup):
        super().__init__()
        self.attention, self.group = attention, group

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, t, c) -> (n, t, c), with n pixels and this rank's frames."""
        group, width = self.group, tokens.shape[2]
        pixels = shares(len(tokens), group.size)
        mine, own_frames = pixels[group.rank], group.sizes[group.rank]
        all_frames = group.all_to_all(tokens.split(pixels), [(mine, frames, width) for frames in group.sizes])
        attended = self.attention(torch.cat(all_frames, dim=1))
        back = group.all_to_all(attended.split(group.sizes, dim=1), [(count, own_frames, width) for count in pixels])
        return torch.cat(back)
