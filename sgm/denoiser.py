"""The UNet as what the sampler and the training loss ask for: a function of noisy latents and their noise level."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .diffusion.guidance import guide
from .diffusion.scaling import denoise
from .models.conditioner import Conditioning
from .models.unet import VideoUNet


def conditioned_network(unet: VideoUNet, conditions: Sequence[Conditioning]) -> Callable[[Tensor, Tensor], Tensor]:
    """The UNet with its conditions given: a function (scaled latents (b t, c, h, w), c_noise (b t,)) -> v.

    One condition a clip, all of the same number of frames.
    """
    num_frames = len(conditions[0].vector)
    concat = torch.cat([condition.concat.expand(num_frames, -1, -1, -1) for condition in conditions])
    context = torch.cat([condition.crossattn for condition in conditions])
    vector = torch.cat([condition.vector for condition in conditions])

    def network(scaled: Tensor, noise: Tensor) -> Tensor:
        prediction: Tensor = unet(torch.cat([scaled, concat], dim=1), noise, context, vector, num_frames)
        return prediction

    return network


def guided_denoiser(unet: VideoUNet, conditioning: Conditioning, scales: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A function (noisy latents (t, c, h, w), sigma ()) -> denoised latents, with classifier-free guidance.

    The unconditional and the conditional clip go through the network as one batch of two, in this order; `scales` (t,)
    holds each frame's guidance scale.
    """
    network = conditioned_network(unet, [conditioning.unconditional(), conditioning])

    def denoiser(noisy: Tensor, sigma: Tensor) -> Tensor:
        denoised = denoise(network, noisy.repeat(2, 1, 1, 1), sigma.expand(2 * len(noisy)))
        unconditional, conditional = denoised.chunk(2)
        return guide(unconditional, conditional, scales)

    return denoiser
