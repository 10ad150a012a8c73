"""What a run starts from: another checkpoint's weights, or zeroed branches."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from ..errors import UserError
from ..models.vae import is_temporal
from ..models.video_model import VideoModel


def take_weights(model: VideoModel, path: Path) -> None:
    """Copy every tensor of a checkpoint whose key and shape match the model's; the others keep their values.

    The checkpoint may be another version's, with the conditioning VAE under another number and no temporal layers in
    its decoder. The rest of the autoencoder must be there: UserError names what is missing.
    """
    if not path.is_file():
        raise UserError(
            f"there are no weights {path} to start from: run the previous training first, see configs/training"
        )
    own = model.config.checkpoint.conditioning_vae
    tensors = {re.sub(r"^conditioner\.embedders\.\d+\.encoder(?=\.)", own, k): t for k, t in load_file(path).items()}
    state = model.state_dict()
    for name, key in model.checkpoint_keys():
        if key in tensors and tensors[key].shape == state[name].shape:
            state[name].copy_(tensors[key])
        elif name.startswith(("conditioner.vae.", "first_stage.")) and not is_temporal(name):
            raise UserError(f"can't start from {path}: it has no {key} of shape {tuple(state[name].shape)}")


@torch.no_grad()
def zero(layer: nn.Module) -> None:
    """Set all of a layer's parameters to 0, the start of a residual branch's last layer."""
    for parameter in layer.parameters():
        parameter.zero_()
