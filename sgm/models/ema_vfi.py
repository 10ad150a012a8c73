"""EMA-VFI, which makes the frame at any time between two frames (Zhang et al. 2023, arXiv:2303.00440).

From what an encoder knows of both frames the flow from the frame in between to each of them is found, first coarsely,
then more finely; both are warped along it and mixed by a mask, and a small UNet corrects what that leaves.

Shapes: `b` pairs, `c` channels, `h w` any size, `H W` that of the frames. Frames are (b 3 H W) in [0, 1], in the order
blue, green, red, with sides divisible by 16. Flows and masks are float32 whatever the weights are, since half precision
counts pixels in steps of a quarter beyond 256; a flow is (b 4 H W) in pixels, x and y to the first frame, then to the
second one. Attribute names are those of the released files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .empty import without_numbers
from .layers import Conv3x3
from .pair_encoder import PairEncoder, PairFeatures, halving

SIZE_MULTIPLE = 16


@dataclass(frozen=True)
class EMAVFIConfig:
    """channels: of the encoder's first level. depths: how many layers or blocks each of its levels has."""

    channels: int
    depths: tuple[int, int, int, int, int]


class Pair(NamedTuple):
    """Two frames, float32, with what the encoder knows of them; it holds for every time between them."""

    first: Tensor
    second: Tensor
    features: PairFeatures


class EMAVFI(nn.Module):
    """The network of one size."""

    def __init__(self, config: EMAVFIConfig):
        super().__init__()
        self.config = config
        channels, depths = config.channels, config.depths
        self.feature_bone = PairEncoder(channels, depths)
        heads = ((channels * 2**4, 6), (channels * 2**3, 17))  # coarse, then fine
        self.block = nn.ModuleList(FlowHead(of_level, known, 4 * channels) for of_level, known in heads)
        self.unet = Refinement(2 * channels)

    def forward(self, first: Tensor, second: Tensor, time: float) -> Tensor:
        """The frame at a time in (0, 1) between two, (b 3 H W)."""
        return self.between(self.encode(first, second), time)

    def encode(self, first: Tensor, second: Tensor) -> Pair:
        """What is needed of two frames for any time between them."""
        frames = torch.cat([first, second])
        return Pair(first, second, self.feature_bone(frames.to(self.unet.conv.weight.dtype)))

    def between(self, pair: Pair, time: float) -> Tensor:
        """The frame at a time in (0, 1) between those of a pair, (b 3 H W)."""
        flow, mask = self.flow_at(pair, time)
        warped = _warped_pair(pair, flow)
        share = mask.sigmoid()
        merged = share * warped[0] + (1 - share) * warped[1]
        return (merged + self.correction(pair, warped, flow, mask)).clamp(0, 1)

    def flow_at(self, pair: Pair, time: float, *, finest: bool = True) -> tuple[Tensor, Tensor]:
        """The flow at a time, and the mask (b 1 H W), whose sigmoid is how much is of the first frame.

        finest: False stops after the coarse level.
        """
        known = torch.cat([pair.first, pair.second], dim=1)
        flow, mask = self.block[0](_at_time(pair.features, 4, time), known, None, scale=4)
        if finest:
            known = torch.cat([known, *_warped_pair(pair, flow), mask], dim=1)
            more_flow, more_mask = self.block[1](_at_time(pair.features, 3, time), known, flow, scale=2)
            flow, mask = flow + more_flow, mask + more_mask
        return flow, mask

    def correction(self, pair: Pair, warped: tuple[Tensor, Tensor], flow: Tensor, mask: Tensor) -> Tensor:
        """What to add to the mix of the warped frames, (b 3 H W) in (-1, 1)."""
        features, of_level = [], flow
        for level, appearance in enumerate(pair.features.appearance):
            if level:
                of_level = F.interpolate(of_level, scale_factor=0.5, mode="bilinear") / 2
            to_each = zip(appearance.chunk(2), of_level.chunk(2, dim=1), strict=True)
            features.append(torch.cat([warp(of_frame, to_frame) for of_frame, to_frame in to_each], dim=1))
        known = torch.cat([pair.first, pair.second, *warped, mask, flow], dim=1)
        return 2 * self.unet(known.to(features[0].dtype), features).float() - 1


def empty_ema_vfi(config: EMAVFIConfig) -> EMAVFI:
    """The network on the meta device, for evaluation: names, shapes and types without numbers."""
    with without_numbers():
        network = EMAVFI(config)
    return network.requires_grad_(False).eval()


def _at_time(features: PairFeatures, level: int, time: float) -> Tensor:
    """What a flow head is told of both frames at one of the two levels with motion: (b c h w)."""
    motion, appearance = features.motion[level - 3].chunk(2), features.appearance[level].chunk(2)
    return torch.cat([time * motion[0], (1 - time) * motion[1], *appearance], dim=1)


def _warped_pair(pair: Pair, flow: Tensor) -> tuple[Tensor, Tensor]:
    return warp(pair.first, flow[:, :2]), warp(pair.second, flow[:, 2:])


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Each pixel from where the flow (b 2 h w) leads in x (b c h w), interpolated linearly; beyond its edge, from it.

    Computed in float32, and given in the type of x.
    """
    height, width = x.shape[2:]
    columns = torch.arange(width, device=x.device) + flow[:, 0]
    rows = torch.arange(height, device=x.device)[:, None] + flow[:, 1]
    places = torch.stack([2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1], dim=-1)
    return F.grid_sample(x.float(), places, mode="bilinear", padding_mode="border", align_corners=True).to(x.dtype)


class FlowHead(nn.Module):
    """Flow and mask from the features of one level and from what is known at the frames' size.

    level_channels: of the appearance of one frame, and of its motion; known_channels: with the flow's.
    """

    def __init__(self, level_channels: int, known_channels: int, width: int):
        super().__init__()
        in_channels = 4 * level_channels // 16 + known_channels
        self.conv = nn.Sequential(
            *(
                nn.Sequential(Conv3x3(before, after), nn.PReLU(after))
                for before, after in ((in_channels, width), (width, width), (width, 5))
            )
        )

    def forward(self, features: Tensor, known: Tensor, flow: Tensor | None, scale: int) -> tuple[Tensor, Tensor]:
        """Features (b c h w) at 1/(4 scale) of the size, known (b c' H W) -> flow (b 4 H W), mask (b 1 H W).

        scale: how much smaller than the frames the flow is found.
        """
        known = F.interpolate(known, scale_factor=1 / scale, mode="bilinear")
        if flow is not None:
            known = torch.cat([known, F.interpolate(flow, scale_factor=1 / scale, mode="bilinear") / scale], dim=1)
        spread = F.pixel_shuffle(F.pixel_shuffle(features, 2), 2)  # not the same as once by 4
        found = self.conv(torch.cat([spread, known.to(spread.dtype)], dim=1)).float()
        found = F.interpolate(found, scale_factor=scale, mode="bilinear")
        return found[:, :4] * scale, found[:, 4:]


class Refinement(nn.Module):
    """The UNet that corrects the mix; `channels` of its finest level."""

    def __init__(self, channels: int):
        super().__init__()
        self.down0 = Down(17 + channels, 2 * channels)
        self.down1 = Down(4 * channels, 4 * channels)
        self.down2 = Down(8 * channels, 8 * channels)
        self.down3 = Down(16 * channels, 16 * channels)
        self.up0 = _doubling(32 * channels, 8 * channels)
        self.up1 = _doubling(16 * channels, 4 * channels)
        self.up2 = _doubling(8 * channels, 2 * channels)
        self.up3 = _doubling(4 * channels, channels)
        self.conv = Conv3x3(channels, 3)

    def forward(self, known: Tensor, features: list[Tensor]) -> Tensor:
        """Known (b 17 H W), and the warped features of both frames at five levels -> (b 3 H W) in (0, 1)."""
        passed, x = [], known
        for down, feature in zip((self.down0, self.down1, self.down2, self.down3), features, strict=False):
            x = down(torch.cat([x, feature], dim=1))
            passed.append(x)
        x = self.up0(torch.cat([x, features[4]], dim=1))
        for up, skipped in zip((self.up1, self.up2, self.up3), passed[2::-1], strict=True):
            x = up(torch.cat([x, skipped], dim=1))
        return self.conv(x).sigmoid()


class Down(nn.Module):
    """Half the size."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = halving(in_channels, out_channels)
        self.conv2 = nn.Sequential(Conv3x3(out_channels, out_channels), nn.PReLU(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """B c h w -> b c' h/2 w/2."""
        return self.conv2(self.conv1(x))


def _doubling(in_channels: int, out_channels: int) -> nn.Sequential:
    """Twice the size."""
    return nn.Sequential(nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1), nn.PReLU(out_channels))
