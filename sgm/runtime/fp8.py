"""8-bit UNet weights, half the size of fp16, and, on devices that support it, 8-bit matrix products as well.

The format is FP8 e4m3 (arXiv:2209.05433): 3 bits of mantissa, at most 448. Each output channel has its own scale, which
maps its largest weight to that maximum. Embeddings and the first and last convolutions keep their precision: they are
small, and everything passes through them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import ScalingType
from torch.nn.utils import parametrize

from ..models.layers import FeedForward, SelfAttention
from ..models.unet import Stage, VideoUNet

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
SMALLEST_SCALE = 1e-12  # of rows that are all zero
MULTIPLE = 16  # of the layer widths that graphics cards' FP8 products support


def to_fp8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (n, ...) as FP8 of the same shape, and the scale to multiply each row by, float32 (n, 1, ...)."""
    largest = rows.abs().amax(dim=tuple(range(1, rows.ndim)), keepdim=True)
    scale = (largest.float() / LARGEST).clamp(min=SMALLEST_SCALE)
    return (rows / scale).to(FP8), scale


class StoredInFp8(nn.Module):
    """A parametrization of a weight (out, ...): stored in FP8 with its scales, and restored whenever it is used."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """What is stored for a weight."""
        return to_fp8(weight)

    def forward(self, stored: Tensor, scale: Tensor) -> Tensor:
        """The weight to compute with."""
        return (stored.float() * scale).to(self.dtype)  # in fp16 a scale itself may be too small


class Fp8Linear(nn.Module):
    """A linear layer that multiplies FP8 by FP8: each token, too, has its own scale, computed on the fly."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight, scale = to_fp8(linear.weight)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = linear.bias

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., in_channels) -> (..., out_channels), via bfloat16, which all devices can return such products in."""
        rows, scale = to_fp8(tokens.flatten(0, -2))
        product = F.scaled_mm(
            rows,
            self.weight.t(),
            scale,
            ScalingType.RowWise,
            self.scale.t(),
            ScalingType.RowWise,
            output_dtype=torch.bfloat16,
        )
        product = product.to(tokens.dtype).unflatten(0, tokens.shape[:-1])
        return product if self.bias is None else product + self.bias


def use_fp8(unet: VideoUNet, *, linears: bool) -> None:
    """Keep the UNet's weights in FP8; with `linears`, the linear layers over tokens also compute in it."""
    if linears:
        for block in [module for module in unet.modules() if isinstance(module, SelfAttention | FeedForward)]:
            for name, module in list(block.named_modules()):
                if isinstance(module, nn.Linear) and not (module.in_features | module.out_features) % MULTIPLE:
                    block.set_submodule(name, Fp8Linear(module))
    stages = [module for module in unet.modules() if isinstance(module, Stage)]
    for stage in stages[1:]:
        for module in list(stage.modules()):
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
                parametrize.register_parametrization(module, "weight", StoredInFp8(unet.dtype))
