"""The model that is measured: a version with its own weights, or one of its structure with random ones."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from ..config import ModelConfig
from ..models.video_model import VideoModel, empty_model

MIN_CLIP_LAYERS = 2


def narrowed(config: ModelConfig, model_channels: int) -> ModelConfig:
    """The configuration with this many channels at the UNet's finest level, and everything else in proportion.

    Heads keep their width, so their number falls; where it would fall below one, they become narrower.
    """
    unet, vae, clip = config.unet, config.vae, config.clip
    share = model_channels / unet.model_channels
    context_dim = clip.heads * max(8, round(unet.context_dim * share / clip.heads / 8) * 8)
    return replace(
        config,
        unet=replace(
            unet,
            model_channels=model_channels,
            head_channels=min(unet.head_channels, model_channels),
            context_dim=context_dim,
        ),
        vae=replace(vae, base_channels=max(vae.norm_groups, round(vae.base_channels * share / 32) * 32)),
        clip=replace(
            clip, width=context_dim, embed_dim=context_dim, layers=max(MIN_CLIP_LAYERS, round(clip.layers * share))
        ),
    )


def write_random_weights(config: ModelConfig, path: Path, dtype: torch.dtype) -> None:
    """A checkpoint of this structure with random weights that keep activations at about unit size."""
    model = empty_model(config)
    generator = torch.Generator().manual_seed(0)
    keys = dict(model.checkpoint_keys())
    state = {
        keys[name]: _random(model, name, parameter, generator).to(dtype)
        for name, parameter in model.state_dict().items()
    }
    save_file(state, path)


def write_config(config: ModelConfig, path: Path) -> None:
    """The configuration as a file of its own."""
    values = asdict(config)
    del values["version"]
    path.write_text(json.dumps(values))  # JSON is YAML too


def _random(model: VideoModel, name: str, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    module_name, _, parameter = name.rpartition(".")
    module = model.get_submodule(module_name)
    if isinstance(module, nn.GroupNorm | nn.LayerNorm):
        return torch.full(like.shape, float(parameter == "weight"))
    if like.ndim < 2:
        return torch.zeros(like.shape)
    return torch.randn(like.shape, generator=generator) / like[0].numel() ** 0.5
