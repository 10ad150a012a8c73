"""Noise levels."""

import torch
from torch import Tensor

SIGMA_MIN = 0.002
SIGMA_MAX = 700.0
RHO = 7.0


def karras_sigmas(num_steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX) -> Tensor:
    """Falling noise levels with a last 0, float32 (num_steps + 1,): EDM equation 5 with rho = 7.

    The values are computed in float32, as the released models' sampler does.
    """
    ramp = torch.linspace(0, 1, num_steps)
    high, low = sigma_max ** (1 / RHO), sigma_min ** (1 / RHO)
    sigmas = (high + ramp * (low - high)) ** RHO
    return torch.cat([sigmas, torch.zeros(1)])
