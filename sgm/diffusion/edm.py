"""Diffusion in its EDM form (arXiv:2206.00364): noise levels, the network's scaling, guidance, and the samplers.

A sampler goes from noise to latents along the probability-flow equation dx/dsigma = (x - D(x; sigma)) / sigma. It takes
the denoiser D(x, sigma), latents at the first of the noise levels, which fall to a last 0, and returns clean latents.
It begins from `start`'s noise, or from whatever else is noisy to that level. `track` wraps the steps' numbers, for a
progress bar.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..config import GuidanceConfig

SIGMA_MIN = 0.002
SIGMA_MAX = 700.0
RHO = 7.0
# Align Your Steps (arXiv:2404.14507): the levels of 10 steps that its authors found for Stable Video Diffusion.
AYS_SIGMAS = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034)


def karras_sigmas(num_steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX) -> Tensor:
    """Falling noise levels with a last 0, float32 (num_steps + 1,): EDM equation 5 with rho = 7.

    The values are computed in float32, as the released models' sampler does.
    """
    ramp = torch.linspace(0, 1, num_steps)
    high, low = sigma_max ** (1 / RHO), sigma_min ** (1 / RHO)
    sigmas = (high + ramp * (low - high)) ** RHO
    return torch.cat([sigmas, torch.zeros(1)])


def ays_sigmas(num_steps: int) -> Tensor:
    """Falling noise levels with a last 0, float32 (num_steps + 1,): Align Your Steps.

    For other numbers than 10 the logarithms of its levels are interpolated.
    """
    positions = np.linspace(0, 1, num_steps)
    logs = np.interp(positions, np.linspace(0, 1, len(AYS_SIGMAS)), np.log(AYS_SIGMAS))
    return torch.tensor([*np.exp(logs), 0.0], dtype=torch.float32)


SCHEDULES = {"karras": karras_sigmas, "ays": ays_sigmas}


class Scaling(NamedTuple):
    """EDM's preconditioning for one noise level (equation 7): D(x) = skip * x + out * network(in_ * x, noise)."""

    skip: Tensor
    out: Tensor
    in_: Tensor
    noise: Tensor


def v_prediction_scaling(sigma: Tensor) -> Scaling:
    """The scaling under which a v-predicting network (arXiv:2202.00512) denoises at `sigma`, of any shape."""
    variance = sigma**2 + 1
    return Scaling(skip=1 / variance, out=-sigma / variance.sqrt(), in_=1 / variance.sqrt(), noise=sigma.log() / 4)


def denoise(network: Callable[[Tensor, Tensor], Tensor], noisy: Tensor, sigma: Tensor) -> Tensor:
    """The denoised latents D(noisy; sigma), in float32.

    `noisy` is n c h w, `sigma` (n,), a level for each; the network takes the scaled latents and c_noise (n,).
    """
    scaling = v_prediction_scaling(rearrange(sigma.float(), "n -> n 1 1 1"))
    output = network(scaling.in_ * noisy, rearrange(scaling.noise, "n 1 1 1 -> n"))
    return scaling.out * output.to(torch.float32) + scaling.skip * noisy


def guidance_scales(config: GuidanceConfig, num_frames: int) -> Tensor:
    """The guidance scale of each frame, float32 (num_frames,).

    Linear goes from min to max. The triangle rises to max at the middle and falls back; an even number of frames has
    no middle frame, so there it stays below max.
    """
    if config.shape == "linear":
        return torch.linspace(config.min_scale, config.max_scale, num_frames)
    position = torch.linspace(0, 1, num_frames)
    rise = 2 * (position - (position + 0.5).floor()).abs()
    return config.min_scale + (config.max_scale - config.min_scale) * rise


def clips_a_step(config: GuidanceConfig) -> int:
    """How many predictions a step takes for a clip: the two of guidance, or one where every scale is 1."""
    return 2 if config.has_effect else 1


def guide(unconditional: Tensor, conditional: Tensor, scales: Tensor) -> Tensor:
    """unconditional + scale * (conditional - unconditional), for t c h w and one scale a frame, (t,)."""
    return unconditional + rearrange(scales, "t -> t 1 1 1") * (conditional - unconditional)


Denoiser = Callable[[Tensor, Tensor], Tensor]
Track = Callable[[Iterable[int]], Iterable[int]]


class Sampler(Protocol):
    """What every sampler is called with."""

    def __call__(self, denoiser: Denoiser, noisy: Tensor, sigmas: Tensor, track: Track = iter) -> Tensor:
        """Clean latents from noisy ones."""
        ...


def sample_euler(denoiser: Denoiser, noisy: Tensor, sigmas: Tensor, track: Track = iter) -> Tensor:
    """Euler steps without churn (EDM, arXiv:2206.00364, algorithm 1 without its second half): the released sampler."""
    for step in track(range(len(sigmas) - 1)):
        sigma, next_sigma = sigmas[step], sigmas[step + 1]
        slope = (noisy - denoiser(noisy, sigma)) / sigma
        noisy = noisy + (next_sigma - sigma) * slope
    return noisy


def sample_heun(denoiser: Denoiser, noisy: Tensor, sigmas: Tensor, track: Track = iter) -> Tensor:
    """Heun steps (EDM, algorithm 1): second order, with two calls of the denoiser in every step but the last."""
    for step in track(range(len(sigmas) - 1)):
        sigma, next_sigma = sigmas[step], sigmas[step + 1]
        slope = (noisy - denoiser(noisy, sigma)) / sigma
        following = noisy + (next_sigma - sigma) * slope
        if next_sigma > 0:
            next_slope = (following - denoiser(following, next_sigma)) / next_sigma
            following = noisy + (next_sigma - sigma) * (slope + next_slope) / 2
        noisy = following
    return noisy


def sample_dpmpp_2m(denoiser: Denoiser, noisy: Tensor, sigmas: Tensor, track: Track = iter) -> Tensor:
    """DPM-Solver++ (2M) steps (arXiv:2211.01095, algorithm 2): second order, with one call of the denoiser a step.

    In its terms alpha is 1 and lambda = -log sigma. The first step and the last one, to 0, are of first order.
    """
    denoised_before = noisy
    for step in track(range(len(sigmas) - 1)):
        sigma, next_sigma = sigmas[step], sigmas[step + 1]
        denoised = denoiser(noisy, sigma)
        target = denoised
        if step > 0 and next_sigma > 0:
            ratio = (sigmas[step - 1] / sigma).log() / (sigma / next_sigma).log()  # of the two steps in lambda
            target = denoised + (denoised - denoised_before) / (2 * ratio)
        noisy = target + (next_sigma / sigma) * (noisy - target)
        denoised_before = denoised
    return noisy


def start(noise: Tensor, sigmas: Tensor) -> Tensor:
    """Unit noise at the variance that unit data have at the first noise level."""
    return noise * torch.sqrt(1 + sigmas[0] ** 2)


SAMPLERS: dict[str, Sampler] = {"euler": sample_euler, "heun": sample_heun, "dpmpp_2m": sample_dpmpp_2m}
