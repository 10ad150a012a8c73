"""The network that makes frames between a clip's own, loaded and placed beside the model."""

from __future__ import annotations

from functools import partial

import torch

from ..checkpoint.interpolators import InterpolatorWeights
from ..checkpoint.loading_interpolator import load_interpolator
from ..enhance.ema_vfi import NetworkInterpolator
from ..progress import Progress
from ..runtime.offloading import Placement, weights_device


def place_interpolator(
    weights: InterpolatorWeights, placement: Placement, dtype: torch.dtype, progress: Progress
) -> NetworkInterpolator:
    """What makes frames by the weights of a file, on the placement's device and in its memory mode.

    progress: is told when memory runs out. Raises UserError for an unsuitable file.
    """
    network = load_interpolator(weights, device=weights_device(placement.mode, placement.device), dtype=dtype)
    placement.add(network)
    at_work = partial(placement.at_work, network)
    return NetworkInterpolator(network, weights.knows_any_time, placement.device, at_work, warn=progress.say)
