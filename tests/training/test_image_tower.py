"""The tower that tells how the camera will move: what it learns from, that it learns, and the one in the box."""

from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sgm.checkpoint.loading import load_model
from sgm.config import load_config
from sgm.data.camera_moves import camera_motion, scene_clip
from sgm.data.clips import to_tensor
from sgm.models.video_model import VideoModel
from sgm.training.__main__ import build_model
from sgm.training.config import TrainingConfig, load_training_config
from sgm.training.image_tower import ImageTowerObjective
from sgm.training.loop import Trainer

ROOT = Path(__file__).parents[2]


def small_run(**changes: object) -> tuple[TrainingConfig, VideoModel, ImageTowerObjective]:
    config = load_training_config(ROOT / "configs" / "training" / "image_tower.yaml")
    config = replace(config, start_from="", size=32, num_clips=16, batch_size=8, steps=150, **changes)
    model = build_model(config)
    return config, model, ImageTowerObjective(model, config, torch.device("cpu"))


def test_a_mirrored_picture_is_followed_as_in_a_mirror() -> None:
    first = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    mirrored = camera_motion(first.flip(2), 0.02)
    assert astuple(mirrored) == pytest.approx(astuple(camera_motion(first, 0.02).mirrored()), abs=1e-6)


def test_only_the_tower_learns_and_it_learns() -> None:
    config, model, objective = small_run()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    losses = [step.loss for step in Trainer(model, config).run(objective)]
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed
    assert all(key.startswith("conditioner.clip.") for key in changed)
    assert np.mean(losses[-20:]) < 0.3 * np.mean(losses[:5])


def test_a_step_is_a_function_of_its_number_alone() -> None:
    (*_, first), (*_, second) = small_run(), small_run()
    first(1)
    assert first(2).item() == second(2).item()


def test_a_sheet_shows_motions_as_they_should_be_above_what_the_tower_tells() -> None:
    _, model, objective = small_run()
    rows = objective.sheet()
    assert rows.shape == (4, model.config.num_frames, 3, 32, 32)
    torch.testing.assert_close(rows[0, 0], rows[1, 0])
    for moved in rows:
        assert (moved[-1] - moved[0]).abs().mean() > 0.01


def test_the_bundled_tower_tells_the_motion_of_scenes_it_never_saw() -> None:
    checkpoint = ROOT / "checkpoints" / "svd_tiny.safetensors"
    model = load_model(load_config("svd_tiny"), checkpoint, device=torch.device("cpu"), dtype=torch.float32)
    pictures = np.concatenate([scene_clip(seed, 1, 128, 0, 1, held_out=True) for seed in range(64)])
    true = torch.tensor([astuple(camera_motion((to_tensor(p[None])[0] + 1) / 2, 1.0)) for p in pictures])
    with torch.no_grad():
        told = model.conditioner.clip(to_tensor(pictures))[:, :4]
    unexplained = (told - true).square().mean(0) / true.var(0)
    assert unexplained.max() < 0.1
