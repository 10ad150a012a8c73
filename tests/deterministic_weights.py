"""Weights that need no file: each tensor follows from its key in a released checkpoint, and from its shape, alone.

The goldens were computed with these very numbers.
"""

import math
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def weights_for(key: str, shape: Sequence[int]) -> Tensor:
    """Gaussian numbers seeded by the key's CRC-32, scaled so that activations keep their size from layer to layer."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    numbers = generator.standard_normal(tuple(shape)).astype(np.float32)
    if key.endswith("mix_factor"):
        numbers *= np.float32(0.5)
    elif len(shape) > 1:
        numbers /= np.float32(math.sqrt(math.prod(shape[1:])))
    else:
        numbers *= np.float32(0.1)
        if key.endswith("weight"):
            numbers += np.float32(1)
    return torch.from_numpy(numbers)
