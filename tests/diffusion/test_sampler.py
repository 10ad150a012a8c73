"""The samplers where their steps, or the equation that they follow, have closed forms."""

import itertools
import math
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor

from sgm.diffusion.edm import SAMPLERS, Sampler, karras_sigmas, sample_dpmpp_2m, sample_euler, sample_heun, start

NOISE = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_a_single_clean_clip_is_reached_exactly(sampler: Sampler) -> None:
    """Of data that are one point the paths are straight lines, so that no sampler's steps have an error."""
    clip = torch.linspace(-3, 3, NOISE.numel()).view_as(NOISE)
    for num_steps in (1, 5):
        sampled = sampler(lambda noisy, sigma: clip, start(NOISE, karras_sigmas(num_steps)), karras_sigmas(num_steps))
        torch.testing.assert_close(sampled, clip, rtol=1e-4, atol=1e-3)


def test_steps_of_a_linear_denoiser() -> None:
    """With D(x) = x * s^2 / (s^2 + sigma^2), each step multiplies by 1 + (next - sigma) * sigma / (s^2 + sigma^2)."""
    spread = 0.5
    sigmas = karras_sigmas(20)
    factor = math.sqrt(1 + 700**2)
    for sigma, following in itertools.pairwise(sigmas.tolist()):
        factor *= 1 + (following - sigma) * sigma / (spread**2 + sigma**2)
    torch.testing.assert_close(
        sample_euler(gaussian_denoiser(spread), start(NOISE, sigmas), sigmas), factor * NOISE, rtol=1e-3, atol=0
    )


def test_gaussian_data_are_reached_as_steps_grow_finer() -> None:
    """The flow's exact end is s * noise (to 1e-6: 700 is not infinite); Euler's error falls with the step's length."""
    spread = 0.5
    errors = []
    for num_steps in (50, 100, 200):
        sigmas = karras_sigmas(num_steps).double()
        sampled = sample_euler(gaussian_denoiser(spread), start(NOISE.double(), sigmas), sigmas)
        errors.append(float((sampled / NOISE.double()).mean() / spread - 1))
    assert abs(errors[2]) < 0.03
    for coarse, fine in itertools.pairwise(errors):
        assert 1.8 < coarse / fine < 2.2


@pytest.mark.parametrize("sampler", [sample_heun, sample_dpmpp_2m])
def test_second_order_samplers_have_a_quarter_of_the_error_at_half_the_step(sampler: Sampler) -> None:
    """On the way from 700 to 0.5, without the last step to 0, where the exact flow is known in closed form."""
    spread, end = 0.5, 0.5
    exact = math.sqrt((spread**2 + end**2) / (spread**2 + 700**2)) * math.sqrt(1 + 700**2)
    errors = []
    for num_steps in (60, 120, 240):
        sigmas = karras_sigmas(num_steps, sigma_min=end)[:-1].double()
        sampled = sampler(gaussian_denoiser(spread), start(NOISE.double(), sigmas), sigmas)
        errors.append(float((sampled / NOISE.double()).mean() / exact - 1))
    assert abs(errors[2]) < 3e-4
    for coarse, fine in itertools.pairwise(errors):
        assert 3.3 < coarse / fine < 4.7


def test_calls_of_the_denoiser() -> None:
    """Heun's steps call it twice, but for the last one; the others once."""
    for sampler, expected in ((sample_euler, 5), (sample_heun, 9), (sample_dpmpp_2m, 5)):
        levels: list[float] = []

        def denoiser(noisy: Tensor, sigma: Tensor, levels: list[float] = levels) -> Tensor:
            levels.append(float(sigma))
            return torch.zeros_like(noisy)

        sampler(denoiser, NOISE, karras_sigmas(5))
        assert len(levels) == expected
        assert min(levels) > 0


def test_starts_at_the_first_noise_level_and_walks_down() -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    counted: list[int] = []

    def denoiser(noisy: Tensor, sigma: Tensor) -> Tensor:
        seen.append((noisy, sigma))
        return torch.zeros_like(noisy)

    def track(steps: Iterable[int]) -> Iterable[int]:
        for step in steps:
            yield step
            counted.append(step)

    sigmas = torch.tensor([3.0, 1.0, 0.0])
    result = sample_euler(denoiser, start(NOISE, sigmas), sigmas, track)
    assert [sigma.item() for _, sigma in seen] == [3.0, 1.0]
    torch.testing.assert_close(seen[0][0], NOISE * math.sqrt(10))
    torch.testing.assert_close(seen[1][0], NOISE * math.sqrt(10) / 3)
    torch.testing.assert_close(result, torch.zeros_like(NOISE))
    assert counted == [0, 1]


def gaussian_denoiser(spread: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact denoiser of data that are Gaussian with this standard deviation."""
    return lambda noisy, sigma: noisy * spread**2 / (spread**2 + sigma**2)


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_sampling_may_begin_at_any_level(sampler: Sampler) -> None:
    """Of data that are one point every way there is straight: from a noisy version of anything, at any level."""
    clip, sigmas = torch.linspace(-3, 3, NOISE.numel()).view_as(NOISE), karras_sigmas(9)[4:]
    sampled = sampler(lambda noisy, sigma: clip, clip + 1 + sigmas[0] * NOISE, sigmas)
    torch.testing.assert_close(sampled, clip, rtol=1e-4, atol=1e-3)
