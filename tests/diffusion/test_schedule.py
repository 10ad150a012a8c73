import torch

from sgm.diffusion.schedule import karras_sigmas


def test_ends_and_last_zero() -> None:
    sigmas = karras_sigmas(25)
    assert sigmas.shape == (26,)
    assert sigmas.dtype == torch.float32
    torch.testing.assert_close(sigmas[[0, -2]], torch.tensor([700.0, 0.002]), rtol=1e-4, atol=0)
    assert sigmas[-1] == 0


def test_even_steps_of_the_seventh_root() -> None:
    roots = karras_sigmas(30)[:-1].double() ** (1 / 7)
    steps = roots.diff()
    torch.testing.assert_close(
        steps, torch.full_like(steps, (0.002 ** (1 / 7) - 700 ** (1 / 7)) / 29), rtol=1e-4, atol=0
    )


def test_a_single_step_starts_at_the_top() -> None:
    torch.testing.assert_close(karras_sigmas(1), torch.tensor([700.0, 0.0]))
