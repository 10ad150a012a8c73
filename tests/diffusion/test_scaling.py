import torch
from torch import Tensor

from sgm.diffusion.edm import denoise, v_prediction_scaling

SIGMAS = torch.tensor([0.002, 0.3, 1.0, 20.0, 700.0])


def test_a_perfect_v_predictor_gives_the_clean_latents() -> None:
    """v = cos * noise - sin * clean (arXiv:2202.00512, appendix D), at the angle whose tangent is sigma."""
    clean, noise = torch.randn(2, 5, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    angle = SIGMAS.double().atan()[:, None, None, None]

    def network(scaled: Tensor, c_noise: Tensor) -> Tensor:
        torch.testing.assert_close(scaled, (angle.cos() * clean + angle.sin() * noise), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(c_noise, SIGMAS.log() / 4)
        return angle.cos() * noise - angle.sin() * clean

    noisy = clean + SIGMAS[:, None, None, None] * noise
    # At sigma 700, in float32, what remains of the clean latents after the noise has 4 digits.
    torch.testing.assert_close(denoise(network, noisy, SIGMAS), clean, rtol=0, atol=1e-3)


def test_half_precision_of_the_network_does_not_reach_the_latents() -> None:
    noisy = torch.randn(2, 4, 8, 8)
    denoised = denoise(lambda scaled, c_noise: scaled.half(), noisy, torch.ones(2))
    assert denoised.dtype == torch.float32


def test_each_frame_has_its_own_noise_level() -> None:
    noisy = torch.ones(5, 1, 1, 1)
    together = denoise(lambda scaled, c_noise: c_noise[:, None, None, None] * scaled, noisy, SIGMAS)
    for index, sigma in enumerate(SIGMAS):
        alone = denoise(lambda scaled, c_noise: c_noise[:, None, None, None] * scaled, noisy[:1], sigma[None])
        torch.testing.assert_close(together[index], alone[0])


def test_the_data_of_unit_variance_stay_so() -> None:
    scaling = v_prediction_scaling(SIGMAS)
    torch.testing.assert_close(scaling.in_**2 * (1 + SIGMAS**2), torch.ones(5))
    torch.testing.assert_close(scaling.skip + scaling.out**2, torch.ones(5))
