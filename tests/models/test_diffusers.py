"""Ours against diffusers' own implementation of Stable Video Diffusion, given the same weights, in float64.

Where the two define something differently, the goldens of the original side with us, and the test says where: in
diffusers' UNet the norms of residual blocks have an epsilon of 1e-6, not 1e-5, in the down blocks with attention and in
all up blocks.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import diffusers
import pytest
import torch
from torch import Tensor, nn

from sgm.checkpoint.loading import diffusers_folder
from sgm.models.layers import sinusoid
from sgm.models.video_model import VideoModel
from tests.small_models import deterministic_model, miniature_config


@pytest.fixture(scope="module")
def model() -> VideoModel:
    """Three levels, two of them with attention, two blocks a level: every kind of block that diffusers has."""
    config = miniature_config("svd")
    return deterministic_model(
        dataclasses.replace(
            config,
            unet=dataclasses.replace(
                config.unet, channel_mult=(1, 2, 2), num_res_blocks=2, attention_levels=(0, 1), head_channels=16
            ),
            vae=dataclasses.replace(config.vae, channel_mult=(1, 2, 2), num_res_blocks=2),
        )
    ).double()


def component(model: VideoModel, name: str) -> dict[str, Tensor]:
    """The weights of one component of diffusers' folder."""
    parameters = model.state_dict()
    return {
        key: tensor
        for parameter, place in diffusers_folder(model).items()
        if place.is_within(name)
        for key, tensor in place.within(name).take_apart(parameters[parameter]).items()
    }


@pytest.fixture
def diffusers_unet(model: VideoModel) -> nn.Module:
    """As diffusers builds it, with our weights; every one of ours has a place there, and none of its is left over."""
    config = model.config
    channels = tuple(config.unet.model_channels * mult for mult in config.unet.channel_mult)
    unet = diffusers.UNetSpatioTemporalConditionModel(
        in_channels=8,
        out_channels=4,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * 2 + ("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * 2,
        block_out_channels=channels,
        addition_time_embed_dim=config.scalars[0].width,
        projection_class_embeddings_input_dim=config.vector_width,
        layers_per_block=config.unet.num_res_blocks,
        cross_attention_dim=config.unet.context_dim,
        num_attention_heads=tuple(width // config.unet.head_channels for width in channels),
    )
    unet.load_state_dict(component(model, "unet"))
    return unet.double().eval()


def group_norms(blocks: Iterable[nn.Module]) -> Iterator[nn.GroupNorm]:
    """The norms of the blocks' residual blocks."""
    for block in blocks:
        yield from (module for module in block.resnets.modules() if isinstance(module, nn.GroupNorm))


def unet_results(model: VideoModel, diffusers_unet: nn.Module) -> tuple[Tensor, Tensor]:
    """Both UNets' results for two clips of three frames."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 8, 8, 12, generator=generator, dtype=torch.float64)
    context = torch.randn(2, 1, model.config.unet.context_dim, generator=generator, dtype=torch.float64)
    noise = torch.tensor([0.5, -1.25], dtype=torch.float64)
    scalars = torch.tensor([[6.0, 127.0, 0.02], [7.0, 30.0, 0.5]], dtype=torch.float64)
    vector = sinusoid(scalars.flatten(), model.config.scalars[0].width).reshape(2, -1)
    ours = model.unet(
        x.flatten(0, 1), noise.repeat_interleave(3), context, vector.repeat_interleave(3, dim=0), num_frames=3
    )
    with torch.no_grad():
        theirs = diffusers_unet(x, noise, context, scalars).sample
    return ours, theirs.flatten(0, 1)


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def test_unet_agrees_with_diffusers_but_for_the_norms_epsilon(model: VideoModel, diffusers_unet: nn.Module) -> None:
    down, up = diffusers_unet.down_blocks, diffusers_unet.up_blocks
    as_ours = [*group_norms([*down[2:], diffusers_unet.mid_block])]
    otherwise = [*group_norms([*down[:2], *up])]
    assert {norm.eps for norm in as_ours} == {1e-5}
    assert {norm.eps for norm in otherwise} == {1e-6}
    unpatched = relative_difference(*unet_results(model, diffusers_unet))
    for norm in otherwise:
        norm.eps = 1e-5
    patched = relative_difference(*unet_results(model, diffusers_unet))
    assert patched < 1e-9
    assert unpatched > 1e-6


@pytest.fixture
def diffusers_autoencoder(model: VideoModel) -> nn.Module:
    """Our conditioning encoder and our first stage's temporal decoder, which are one model in diffusers."""
    config = model.config.vae
    autoencoder = diffusers.AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * len(config.channel_mult),
        block_out_channels=tuple(config.base_channels * mult for mult in config.channel_mult),
        layers_per_block=config.num_res_blocks,
        latent_channels=config.latent_channels,
        scaling_factor=config.scale_factor,
    )
    autoencoder.load_state_dict(component(model, "vae"))
    return autoencoder.double().eval()


def test_encoder_agrees_with_diffusers(model: VideoModel, diffusers_autoencoder: nn.Module) -> None:
    images = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        theirs = diffusers_autoencoder.encode(images).latent_dist
    mean = model.conditioner.vae.encode(images)
    assert relative_difference(mean, theirs.mean) < 1e-9


@pytest.mark.parametrize("num_frames", [1, 3, 6])
def test_temporal_decoder_agrees_with_diffusers(
    model: VideoModel, diffusers_autoencoder: nn.Module, num_frames: int
) -> None:
    latents = torch.randn(6, 4, 8, 12, dtype=torch.float64)
    with torch.no_grad():
        theirs = diffusers_autoencoder.decode(latents / model.config.vae.scale_factor, num_frames).sample
    assert relative_difference(model.first_stage.decode(latents, num_frames), theirs) < 1e-9
