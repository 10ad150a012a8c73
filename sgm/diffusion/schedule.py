"""Noise levels."""

import numpy as np
import torch
from torch import Tensor

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
