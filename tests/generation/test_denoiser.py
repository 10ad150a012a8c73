"""What leaves calls of the UNet out: against the plain way, and counted."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from sgm.config import GuidanceConfig
from sgm.generation.denoiser import Solver, make_denoiser, sample_latents
from sgm.models.conditioner import Conditioning
from sgm.models.video_model import VideoModel
from tests.small_models import deterministic_model, miniature_config, relative_error

SCALES = torch.tensor([1.0, 2.0, 3.0])
GUIDANCE = GuidanceConfig("linear", 1.0, 3.0)
NO_GUIDANCE = GuidanceConfig("linear", 1.0, 1.0)
NOISE = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return deterministic_model(miniature_config("svd"))


@pytest.fixture(scope="module")
def conditioning(model: VideoModel) -> Conditioning:
    generator = torch.Generator().manual_seed(0)
    return Conditioning(
        crossattn=torch.randn(1, 1, 32, generator=generator),
        concat=torch.randn(1, 4, 8, 8, generator=generator).expand(3, -1, -1, -1),
        vector=torch.randn(3, model.config.vector_width, generator=generator),
    )


@pytest.fixture
def calls(model: VideoModel) -> Iterator[dict[str, list[int]]]:
    """How many frames each call of the UNet, and of its middle block, is given."""
    counts: dict[str, list[int]] = {"unet": [], "middle": []}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: counts[name].append(len(args[0])))
        for name, module in (("unet", model.unet), ("middle", model.unet.middle_block))
    ]
    yield counts
    for hook in hooks:
        hook.remove()


def test_halves_in_turn_equal_both_at_once(model: VideoModel, conditioning: Conditioning, calls: dict) -> None:
    sigma = torch.tensor(3.0)
    at_once = make_denoiser(model.unet, conditioning, SCALES, Solver(1))(NOISE, sigma)
    in_turn = make_denoiser(model.unet, conditioning, SCALES, Solver(1), in_turn=True)(NOISE, sigma)
    assert relative_error(in_turn, at_once) < 1e-5
    assert calls["unet"] == [6, 3, 3]


def test_guidance_by_one_is_left_out(model: VideoModel, conditioning: Conditioning, calls: dict) -> None:
    """Against scales that are 1 but for rounding, for which the unconditional half is computed."""
    sigma = torch.tensor(3.0)
    left_out = make_denoiser(model.unet, conditioning, torch.ones(3), Solver(1))(NOISE, sigma)
    computed = make_denoiser(model.unet, conditioning, torch.full((3,), 1 + 1e-7), Solver(1))(NOISE, sigma)
    assert relative_error(left_out, computed) < 1e-5
    assert calls["unet"] == [3, 6]


def test_guidance_within_an_interval_alone(model: VideoModel, conditioning: Conditioning, calls: dict) -> None:
    within = make_denoiser(model.unet, conditioning, SCALES, Solver(1, guidance_interval=(1.0, 10.0)))
    guided = make_denoiser(model.unet, conditioning, SCALES, Solver(1))
    conditional = make_denoiser(model.unet, conditioning, torch.ones(3), Solver(1))
    for level, expected in ((50.0, conditional), (10.0, guided), (2.0, guided), (1.0, guided), (0.9, conditional)):
        sigma = torch.tensor(level)
        assert torch.equal(within(NOISE, sigma), expected(NOISE, sigma))
    assert calls["unet"] == [3, 3, 6, 6, 6, 6, 6, 6, 3, 3]


def test_an_interval_of_all_levels_changes_nothing(model: VideoModel, conditioning: Conditioning) -> None:
    plain = sample_latents(model.unet, conditioning, NOISE, GUIDANCE, Solver(4))
    everywhere = sample_latents(model.unet, conditioning, NOISE, GUIDANCE, Solver(4, guidance_interval=(0, 1000)))
    assert torch.equal(plain, everywhere)


@pytest.mark.parametrize("in_turn", [False, True])
def test_deep_layers_are_computed_at_every_second_step(
    model: VideoModel, conditioning: Conditioning, calls: dict, in_turn: bool
) -> None:
    sample_latents(model.unet, conditioning, NOISE, GUIDANCE, Solver(5, cache_interval=2), in_turn=in_turn)
    assert calls["unet"] == ([3] * 10 if in_turn else [6] * 5)
    assert calls["middle"] == ([3] * 6 if in_turn else [6] * 3)


def test_kept_features_are_exact_where_nothing_has_changed(model: VideoModel, conditioning: Conditioning) -> None:
    cached = make_denoiser(model.unet, conditioning, SCALES, Solver(1, cache_interval=3))
    plain = make_denoiser(model.unet, conditioning, SCALES, Solver(1))
    sigma = torch.tensor(3.0)
    first = cached(NOISE, sigma)
    assert torch.equal(first, plain(NOISE, sigma))
    assert torch.equal(first, cached(NOISE, sigma))
    assert not torch.equal(cached(NOISE, torch.tensor(2.0)), plain(NOISE, torch.tensor(2.0)))
    assert torch.equal(cached(NOISE, torch.tensor(1.0)), plain(NOISE, torch.tensor(1.0)))  # the fourth call


def test_features_of_before_an_interval_are_not_used_after_it(
    model: VideoModel, conditioning: Conditioning, calls: dict
) -> None:
    solver = Solver(1, cache_interval=100, guidance_interval=(1.0, 10.0))
    denoiser = make_denoiser(model.unet, conditioning, SCALES, solver)
    for level in (50.0, 20.0, 5.0, 2.0, 0.5, 0.1):
        denoiser(NOISE, torch.tensor(level))
    assert calls["middle"] == [3, 6, 3]


def test_more_steps_of_any_sampler_come_to_the_same_latents(model: VideoModel, conditioning: Conditioning) -> None:
    """A fine second-order solution is the reference; coarse ones of every kind are near it, finer ones nearer."""

    def solve(steps: int, schedule: str, sampler: str) -> Tensor:
        solver = Solver(steps, schedule=schedule, sampler=sampler)
        return sample_latents(model.unet, conditioning, NOISE, NO_GUIDANCE, solver)

    reference = solve(100, "karras", "heun")
    for schedule, sampler in (("karras", "euler"), ("karras", "dpmpp_2m"), ("ays", "dpmpp_2m"), ("ays", "heun")):
        coarse, fine = (relative_error(solve(steps, schedule, sampler), reference) for steps in (6, 24))
        assert fine < coarse / 2, (schedule, sampler)
        assert fine < 0.2, (schedule, sampler)
