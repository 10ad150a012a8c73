"""The small models' encoder: the principal components of picture patches, set into the convolutions in closed form.

The best linear code of the patch under each latent needs no gradient descent, and its latents are uncorrelated,
which suits diffusion. The decoder, which also sees neighbouring latents, learns to restore more than the components.

How the convolutional encoder computes a linear map exactly: residual branches are zero; each strided convolution
gathers four neighbours; and before the last convolution, which follows a normalisation and a SiLU, every component is
present twice, as x and -x, since SiLU(x) - SiLU(-x) = x, next to constants so large that the normalisation's deviation
hardly depends on the picture.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import ModelConfig
from ..data.clips import training_clip
from ..models.vae import Autoencoder, Encoder, Level, ResBlock
from ..progress import Progress
from .initialization import zero

NUM_PICTURES = 3000
CONSTANT = 30.0  # against components of about 1: the deviation varies by a few tenths of a percent
LOG_VARIANCE = -8.0


def fit_encoder(vae: Autoencoder, model: ModelConfig, data: str, size: int, seed: int) -> None:
    """Set encoder and quant_conv to the principal components of `NUM_PICTURES` stills of side `size`.

    data: their kind (see `TrainingConfig.data`).

    Component k has the standard deviation lambda_k^(1/4), lambda_k being its variance in pixels: a compromise
    between weights by their share of the picture and equal weights. The scale makes their mean square 1.
    """
    encoder, quant_conv = vae.encoder, vae.quant_conv
    assert encoder is not None
    assert quant_conv is not None
    latent_channels = quant_conv.out_channels // 2
    numbers = Progress().track("fitting the encoder", range(NUM_PICTURES), unit="picture")
    patches = torch.cat([_patches(training_clip(data, n, size, model, seed).frames[0]) for n in numbers])
    _silence(encoder, quant_conv)

    # 1. Colours, then 2x2 patches of them as channels: nothing is lost.
    colours = 3
    _tap(encoder.conv_in, torch.eye(colours), 1, 1)
    steps = [level.downsample.conv for level in _levels(encoder) if level.downsample is not None]
    _gather(steps[0], torch.eye(4 * colours))
    # 2. The principal components of 4x4 patches, as many as the level has channels.
    quarter = patches.unflatten(1, (4, -1)).flatten(0, 1)  # a patch of 8x8 is four of 4x4, each four of 2x2
    _, basis = _principal_components(quarter, steps[1].out_channels)
    _gather(steps[1], basis)
    for widening in (block.nin_shortcut for block in _blocks(encoder) if hasattr(block, "nin_shortcut")):
        _tap(widening, torch.eye(widening.in_channels), 0, 0)
    # 3. The principal components of 8x8 patches, seen through those of the four 4x4 patches.
    seen = patches.unflatten(1, (4, -1)) @ basis.T
    variances, components = _principal_components(seen.flatten(1), latent_channels)
    components = components * variances[:, None] ** -0.25 / variances.sqrt().mean().sqrt()
    offsets = -(components @ seen.flatten(1).mean(0))
    # 4. Each component as x and -x next to constants, in every group of the last normalisation.
    last, norm = steps[2], encoder.norm_out
    group = norm.num_channels // norm.num_groups
    share = latent_channels // norm.num_groups
    assert group >= 2 * share + 2, "the last level is too narrow for the latents"
    rows = torch.zeros(norm.num_channels, components.shape[1])
    mean_weight = torch.zeros(latent_channels, norm.num_channels)
    assert last.bias is not None
    for component in range(latent_channels):
        plus = component // share * group + component % share
        minus = plus + share
        rows[plus], rows[minus] = components[component], -components[component]
        last.bias.data[plus], last.bias.data[minus] = offsets[component], -offsets[component]
        mean_weight[component, plus], mean_weight[component, minus] = 1, -1
    last.bias.data[group - 2 :: group] = CONSTANT
    last.bias.data[group - 1 :: group] = -CONSTANT
    _gather(last, rows)
    norm.weight.data.fill_(CONSTANT * (2 / group) ** 0.5)
    _tap(encoder.conv_out, mean_weight, 1, 1)
    assert quant_conv.bias is not None
    _tap(quant_conv, torch.eye(latent_channels), 0, 0)
    quant_conv.bias.data[latent_channels:] = LOG_VARIANCE


def _patches(picture: NDArray[np.uint8]) -> Tensor:
    """The 8x8 patches (n, 192) of a picture in [-1, 1], ordered by half, quarter, eighth of the side and colour."""
    pixels = torch.from_numpy(picture).double() / 127.5 - 1
    side = len(picture) // 8
    split = pixels.reshape(side, 2, 2, 2, side, 2, 2, 2, 3)  # y: patch, half, quarter, eighth; x likewise; colour
    return split.permute(0, 4, 1, 5, 2, 6, 3, 7, 8).reshape(side * side, -1)


def _principal_components(samples: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Variances (count,) and unit directions (count, d), by decreasing variance, of samples (n, d)."""
    variances, directions = torch.linalg.eigh(torch.cov(samples.T))
    return variances.flip(0)[:count], directions.T.flip(0)[:count]


def _silence(encoder: Encoder, quant_conv: torch.nn.Conv2d) -> None:
    for block in _blocks(encoder):
        zero(block.conv2)
        if hasattr(block, "nin_shortcut"):
            zero(block.nin_shortcut)
    for level in _levels(encoder):
        if level.downsample is not None:
            zero(level.downsample)
    for layer in (encoder.conv_in, encoder.mid.attn_1.proj_out, encoder.conv_out, quant_conv):
        zero(layer)


def _levels(encoder: Encoder) -> list[Level]:
    return [module for module in encoder.modules() if isinstance(module, Level)]


def _blocks(encoder: Encoder) -> list[ResBlock]:
    return [module for module in encoder.modules() if isinstance(module, ResBlock)]


def _tap(conv: torch.nn.Conv2d, matrix: Tensor, y: int, x: int) -> None:
    """Set one tap of the kernel, for as many output and input channels as the matrix has rows and columns."""
    conv.weight.data[: matrix.shape[0], : matrix.shape[1], y, x] = matrix.to(conv.weight.dtype)


def _gather(conv: torch.nn.Conv2d, matrix: Tensor) -> None:
    """Set a strided convolution to a matrix over the four pixels it covers, row by row, with all channels of each."""
    for index, part in enumerate(matrix.chunk(4, dim=1)):
        _tap(conv, part, index // 2, index % 2)


@torch.no_grad()
def as_one_convolution(vae: Autoencoder, factor: int) -> nn.Conv2d | None:
    """The convolution over patches of `factor` squared pixels that an encoder set by `fit_encoder` computes.

    It takes a hundredth of the time, and knows nothing of the last normalisation, which weakens the contrast of a
    picture by about 2 %. None if it differs, as the encoders of the released models would, by more than 5 % of the
    latents of random pictures.
    """
    size, device = 7 * factor, next(vae.parameters()).device
    middle = slice(3 * factor, 4 * factor)
    offset = vae.encode(torch.zeros(1, 3, size, size, device=device))[0, :, 3, 3]
    patches = torch.zeros(3 * factor**2, 3, size, size, device=device)
    patches[:, :, middle, middle] = 0.5 * torch.eye(3 * factor**2, device=device).unflatten(1, (3, factor, factor))
    rows = vae.encode(patches)[:, :, 3, 3] - vae.encode(-patches)[:, :, 3, 3]
    convolution = nn.Conv2d(3, len(offset), factor, stride=factor, device=device).requires_grad_(False)
    convolution.weight.copy_(rows.T.unflatten(1, (3, factor, factor)))
    convolution.bias.copy_(offset)  # type: ignore[union-attr]
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 4, 4, generator=generator).to(device) * 2 - 1
    pictures = F.interpolate(coarse, size=4 * factor, mode="bicubic")
    expected = vae.encode(pictures)
    difference = (convolution(pictures) - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    return convolution if difference < 0.05 else None
