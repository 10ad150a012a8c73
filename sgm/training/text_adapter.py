"""Training of a text adapter: the encoder of words and the UNet's attention to it, beside weights that stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ..checkpoint.finding import find_text_tower
from ..checkpoint.loading import load_model
from ..checkpoint.text_adapter import read_text_tower
from ..config import load_config
from ..errors import UserError
from ..models.layers import TemporalBlock
from ..models.text import TextAttention, TextEncoder
from ..models.video_model import VideoModel, empty_model
from ..parameters.text_adapter import contradiction
from .config import TrainingConfig
from .initialization import zero


def start_text_adapter(config: TrainingConfig) -> VideoModel:
    """The version's model with the weights of `start_from`, and an adapter that as yet adds exactly nothing.

    Raises UserError for a version that no adapter goes with, and where there are no weights or no `text`.
    """
    plain_config = load_config(config.version)
    if plain_config.takes_prompts or plain_config.input != "picture":
        raise UserError(f"{config.version} takes no text adapter: train one for an svd version that reads no text")
    if not config.start_from:
        raise UserError("a text adapter is trained beside weights: give the version's own as start_from")
    if complaint := contradiction(config.text, plain_config):
        raise UserError(f"text can't be that of an adapter for {config.version}: {complaint}; see docs/prompts.md")
    plain = load_model(plain_config, Path(config.start_from), device=torch.device("cpu"), dtype=torch.float32)
    model = empty_model(replace(plain_config, text=config.text))
    state = model.state_dict() | plain.state_dict()
    for name, tensor in state.items():
        if tensor.is_meta:  # what no sample depends on, and what is made next
            state[name] = torch.zeros_like(tensor, device="cpu")
    model.load_state_dict(state, assign=True)
    if config.text.encoder == "ViT-H-14":
        model.load_state_dict(read_text_tower(find_text_tower().path, model), strict=False)
    else:
        model.conditioner.text = TextEncoder(config.text, plain_config.unet.context_dim)
    add_untrained_attention(model)
    return model


def add_untrained_attention(model: VideoModel) -> None:
    """Give the UNet attention to text with random weights, whose last layers are zero."""
    config = model.config
    for block in model.unet.modules():
        if isinstance(block, TemporalBlock):
            channels = block.norm1.normalized_shape[0]
            block.attn_text = TextAttention(channels, config.unet.context_dim, config.text)
            zero(block.attn_text.to_out)
