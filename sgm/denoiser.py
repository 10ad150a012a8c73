"""The UNet as what the sampler and the training loss ask for: a function of noisy latents and their noise level."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .config import GuidanceConfig
from .diffusion.guidance import guidance_scales, guide
from .diffusion.sampler import sample_euler
from .diffusion.scaling import denoise
from .diffusion.schedule import karras_sigmas
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


def sample_latents(
    unet: VideoUNet,
    conditioning: Conditioning,
    noise: Tensor,
    guidance: GuidanceConfig,
    num_steps: int,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Tensor:
    """A clip's scaled latents, float32, from unit noise (t, c, h, w) of their shape; `track` wraps the steps."""
    scales = guidance_scales(guidance, len(noise)).to(noise.device)
    sigmas = karras_sigmas(num_steps).to(noise.device)
    return sample_euler(guided_denoiser(unet, conditioning, scales), noise, sigmas, track)
