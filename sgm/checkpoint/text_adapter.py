"""Text adapters: what makes a version read text, in a file of its own, beside the version's weights.

Its keys are those that a version which reads text by itself has in its own checkpoint: `conditioner.text.*`, the
encoder of words, and `model.diffusion_model.*.attn_text.*`, the UNet's attention to what it says. CLIP's text tower,
where an adapter uses that instead, stays in the file that it was published in. What an adapter says of itself is in
`sgm.parameters.text_adapter`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..config import ModelConfig
from ..errors import UserError
from ..models.video_model import VideoModel, empty_model
from ..parameters.text_adapter import adapter_metadata
from ..storage.files import write_whole
from .files import Checkpoint
from .loading import Layout, Place, compare, read_parameters, single_file
from .weights import Safetensors

_ENCODER, _ATTENTION = "conditioner.text.", re.compile(r"unet\..*\.attn_text\.")
# What the published file holds beside the tower.
_BESIDE_THE_TOWER = ("visual.", "text_projection", "logit_scale")


def adapter_layout(model: VideoModel) -> Layout:
    """Where an adapter keeps the model's parameters for text, as far as they are its own."""
    of_words = model.config.text.encoder == "words"
    return {
        name: place
        for name, place in single_file(model).items()
        if _ATTENTION.match(name) or (of_words and name.startswith(_ENCODER))
    }


def read_text_tower(path: Path, model: VideoModel) -> dict[str, Tensor]:
    """The parameters of CLIP's text tower, by their names in the model. Raises UserError where they don't fit."""
    weights = Safetensors(path)
    layout = {name: Place((name.removeprefix(_ENCODER),)) for name in model.state_dict() if name.startswith(_ENCODER)}
    found = compare(weights, layout, model)
    difference = replace(found, unexpected=[k for k in found.unexpected if not k.startswith(_BESIDE_THE_TOWER)])
    if difference:
        raise UserError(f"{path} is not the text tower that the text_adapter needs: keys {difference.summary()}")
    return dict(zip(layout, read_parameters(weights, layout), strict=True))


def open_text_adapter(path: Path, model: VideoModel) -> Safetensors:
    """The adapter's tensors. Raises UserError where they are not exactly those that the model needs."""
    weights = Safetensors(path)
    if difference := compare(weights, adapter_layout(model), model):
        raise UserError(
            f"text_adapter {path} does not fit {model.config.version}: keys {difference.summary()}; give one that was"
            " trained for a version of the same structure"
        )
    return weights


def check_text_adapter(path: Path, config: ModelConfig) -> None:
    """Raise UserError where an adapter's tensors don't fit the version, whose configuration includes it."""
    open_text_adapter(path, empty_model(config))


def add_text_adapter(
    plain: VideoModel, checkpoint: Checkpoint, config: ModelConfig, *, device: torch.device, dtype: torch.dtype
) -> VideoModel:
    """A loaded model with the checkpoint's adapter, which `config` includes, and the tower that it may need.

    What is added gets `dtype` on `device`. Raises UserError as above.
    """
    assert checkpoint.text_adapter is not None
    model = empty_model(config)
    weights, layout = open_text_adapter(checkpoint.text_adapter, model), adapter_layout(model)
    of_text = dict(zip(layout, read_parameters(weights, layout), strict=True))
    if checkpoint.text_tower is not None:
        of_text |= read_text_tower(checkpoint.text_tower.path, model)
    added = {name: tensor.to(device=device, dtype=dtype).contiguous() for name, tensor in of_text.items()}
    model.load_state_dict(plain.state_dict() | added, assign=True)
    return model


def save_text_adapter(model: VideoModel, path: Path) -> None:
    """Write the model's parameters for text as an adapter, in float16."""
    state = model.state_dict()
    tensors = {
        place.keys[0]: state[name].to("cpu", torch.float16).contiguous()
        for name, place in adapter_layout(model).items()
    }
    write_whole(path, lambda aside: save_file(tensors, aside, metadata=adapter_metadata(model.config)))
