"""v-prediction in EDM form: what goes into the network and what its output means."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor


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
