"""torch.compile for the UNet, block by block: it has few kinds of blocks, so compiling takes seconds, not minutes."""

from __future__ import annotations

import torch

from ..models.layers import SpatialBlock, TemporalBlock, TimestepResBlock
from ..models.unet import VideoUNet

COMPILED = (SpatialBlock, TemporalBlock, TimestepResBlock)


def compile_blocks(unet: VideoUNet) -> None:
    """Have each block compiled when it is first called with inputs of a given shape, for that shape alone."""
    blocks = [module for module in unet.modules() if isinstance(module, COMPILED)]
    # Blocks of one class share one budget of compilations: as many as there are levels, widths and frame counts.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * len(blocks))
    for block in blocks:
        block.compile(dynamic=False)
