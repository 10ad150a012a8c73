"""Weights that a run starts from."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from ..errors import UserError
from ..models.video_model import VideoModel


def take_weights(model: VideoModel, path: Path) -> None:
    """Copies every tensor of a checkpoint whose key and shape the model has; the rest keep what they have."""
    if not path.is_file():
        raise UserError(f"no weights {path} to start from; run the training before this one (see configs/training)")
    tensors = load_file(path)
    state = model.state_dict()
    for name, key in model.checkpoint_keys():
        if key in tensors and tensors[key].shape == state[name].shape:
            state[name].copy_(tensors[key])
