"""The samplers: from noise to latents along EDM's probability-flow equation dx/dsigma = (x - D(x; sigma)) / sigma.

Each takes the denoiser D(x, sigma), latents at the first of the noise levels, which fall to a last 0, and returns clean
latents. It begins from `start`'s noise, or from whatever else is noisy to that level. `track` wraps the steps' numbers,
for a progress bar.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor

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
