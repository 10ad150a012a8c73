"""Reads the released weights of EMA-VFI: strictly, and nothing but plain tensors (see `torch_pickle`)."""

from __future__ import annotations

import torch

from ..errors import UserError
from ..models.ema_vfi import EMAVFI, EMAVFIConfig, empty_ema_vfi
from .interpolators import InterpolatorWeights
from .torch_archive import TorchArchive
from .weights import DTYPES, printable

CONFIGS = {
    "ours": EMAVFIConfig(channels=32, depths=(2, 2, 2, 4, 4)),
    "ours_small": EMAVFIConfig(channels=16, depths=(2, 2, 2, 2, 2)),
}
PREFIX = "module."  # of every key: the network was trained on several graphics cards
# What a training leaves behind: masks and sizes of the last frames that it saw.
_LEFT_BEHIND = ("attn_mask", "HW")


def config_of(weights: InterpolatorWeights) -> EMAVFIConfig:
    """The structure of a released network."""
    return CONFIGS[weights.release.removesuffix("_t")]


def load_interpolator(weights: InterpolatorWeights, *, device: torch.device, dtype: torch.dtype) -> EMAVFI:
    """The network with the weights of a file on `device`. Raises UserError for an unsuitable file."""
    archive = TorchArchive(weights.path)
    network = empty_ema_vfi(config_of(weights))
    expected = {PREFIX + name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {key: shape for key, shape in archive.shapes.items() if not key.endswith(_LEFT_BEHIND)}
    differing = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    differing += [key for key in expected.keys() & found.keys() if archive.dtypes[key] not in DTYPES]
    if differing:
        named = ", ".join(map(printable, differing[:3])) + ", ..." * (len(differing) > 3)
        raise UserError(
            f"{weights.path} does not hold the weights of {weights.release}: {len(differing)} keys differ ({named});"
            " give the released file with --interpolator_weights"
        )
    tensors = zip(expected, archive.tensors(expected), strict=True)
    state = {key.removeprefix(PREFIX): tensor.to(device=device, dtype=dtype).contiguous() for key, tensor in tensors}
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False)
