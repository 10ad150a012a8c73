"""The denoising loss against its closed form, and the clips that a run sees."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sgm.data.clips import training_clip
from sgm.diffusion.edm import denoise
from sgm.models.video_model import VideoModel
from sgm.training.__main__ import build_model
from sgm.training.config import TrainingConfig, load_training_config
from sgm.training.denoising import DenoisingObjective, denoising_loss
from sgm.training.loop import Trainer

CONFIGS = Path(__file__).parents[2] / "configs" / "training"


def small(name: str) -> TrainingConfig:
    config = load_training_config(CONFIGS / f"{name}.yaml")
    return replace(
        config,
        start_from="",
        num_clips=3,
        batch_size=2,
        steps=2,
        frames_per_clip=4,
        size=32 if name == "sv3d_tiny" else 64,
    )


def objective(config: TrainingConfig) -> tuple[VideoModel, DenoisingObjective]:
    model = build_model(config)
    return model, DenoisingObjective(model, config, torch.device("cpu"))


def test_the_loss_is_the_squared_error_of_v() -> None:
    """v = (n - sigma x0) / sqrt(sigma^2 + 1) for x = x0 + sigma n (arXiv:2202.00512, rotated to EDM's scale).

    The sign is the released models': c_out is negative, so their network gives -v... squared, it is the same.
    """
    generator = torch.Generator().manual_seed(0)
    clean, noise, guess = (torch.randn(5, 4, 3, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    sigma = torch.tensor([0.01, 0.3, 1.0, 20.0, 700.0], dtype=torch.float64)
    level = sigma[:, None, None, None]
    v = (noise - level * clean) / (level**2 + 1).sqrt()
    denoised = denoise(lambda x, _: guess, clean + level * noise, sigma)
    expected = ((guess - v) ** 2).mean()
    assert denoising_loss(denoised, clean, sigma).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize(("name", "towers"), [("sv3d_tiny", {"conditioner.clip"}), ("svd_tiny", set())])
def test_a_run_trains_what_it_is_for_only(name: str, towers: set[str]) -> None:
    config = replace(small(name), steps=4)  # the tower learns once the branches that it feeds are no longer silent
    model, loss = objective(config)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    trainer = Trainer(model, config)
    losses = [step.loss for step in trainer.run(loss)]
    assert all(0 < value < 10 for value in losses)
    changed = {key.split(".")[0] + "." + key.split(".")[1] for key, tensor in model.state_dict().items()
               if not torch.equal(tensor, before[key])}  # fmt: skip
    assert {part for part in changed if not part.startswith("unet.")} == towers
    assert any(part.startswith("unet.") for part in changed)


def test_every_clip_is_seen_once_in_each_pass() -> None:
    _, loss = objective(small("sv3d_tiny"))
    numbers = [number for step in range(1, 7) for number in loss._numbers(step)]
    assert numbers[:3] == [0, 1, 2]
    assert [sorted(numbers[i : i + 3]) for i in range(0, 12, 3)] == [[0, 1, 2]] * 4


def test_a_step_is_a_function_of_its_number_alone() -> None:
    config = small("sv3d_tiny")
    _, first = objective(config)
    _, second = objective(config)
    first(1)
    assert first(2).item() == second(2).item()


def test_noise_levels_are_log_normal_and_spread_within_each_batch() -> None:
    config = small("sv3d_tiny")
    _, loss = objective(config)
    levels = torch.stack([loss._noise_levels(np.random.Generator(np.random.PCG64(k)), 4) for k in range(500)]).log()
    assert levels.mean().item() == pytest.approx(config.log_sigma_mean, abs=0.05)
    assert levels.std().item() == pytest.approx(config.log_sigma_std, rel=0.05)
    assert ((levels > config.log_sigma_mean).sum(dim=1) == 2).all()


@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_the_clips_are_as_fast_as_configured(speed: float) -> None:
    config = replace(small("svd_tiny"), speed=speed)
    model, made = objective(config)
    clip, _ = made._clip(1)
    expected = training_clip("scenes", 1, config.size, model.config, config.seed, speed)
    np.testing.assert_array_equal(clip.frames, expected.frames)
