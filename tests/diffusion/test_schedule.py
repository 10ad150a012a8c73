import torch

from sgm.diffusion.edm import ays_sigmas, karras_sigmas


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


def test_align_your_steps_at_its_own_number_of_steps() -> None:
    published = [700, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0]
    torch.testing.assert_close(ays_sigmas(10), torch.tensor(published))


def test_align_your_steps_at_other_numbers_is_log_linear_between_its_own() -> None:
    twice = ays_sigmas(19)
    torch.testing.assert_close(twice[:-1:2], ays_sigmas(10)[:-1])
    torch.testing.assert_close(twice[1], (twice[0] * twice[2]).sqrt())
    for num_steps in (1, 2, 3, 25):
        sigmas = ays_sigmas(num_steps)
        assert len(sigmas) == num_steps + 1
        assert sigmas[0] == 700
        assert sigmas[-1] == 0
        assert (sigmas.diff() < 0).all()
