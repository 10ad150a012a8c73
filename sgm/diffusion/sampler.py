"""The sampler: from noise to latents along EDM's probability-flow equation."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def sample_euler(
    denoiser: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    sigmas: Tensor,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Tensor:
    """Latents from unit Gaussian noise by Euler steps without churn (EDM, algorithm 1), same shape as `noise`.

    `denoiser(x, sigma)` estimates the clean latents; `sigmas` falls to a last 0; `track` wraps the steps' numbers, for
    a progress bar.
    """
    noisy = noise * torch.sqrt(1 + sigmas[0] ** 2)
    for step in track(range(len(sigmas) - 1)):
        sigma, next_sigma = sigmas[step], sigmas[step + 1]
        slope = (noisy - denoiser(noisy, sigma)) / sigma
        noisy = noisy + (next_sigma - sigma) * slope
    return noisy
