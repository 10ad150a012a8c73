"""Narrowed models with random weights: of the version's structure, and of sane numbers."""

from pathlib import Path

import pytest
import torch

from sgm.benchmark.random_weights import narrowed, write_config, write_random_weights
from sgm.config import load_config
from sgm.generation.pipeline import load
from sgm.parameters.sampling import SamplingParameters
from sgm.stages import Stages


@pytest.mark.parametrize("version", ["svd_xt", "sv3d_p"])
def test_a_narrowed_model_makes_clips_of_finite_numbers(version: str, tmp_path: Path) -> None:
    config = narrowed(load_config(version), 64)
    assert config.unet.channel_mult == load_config(version).unet.channel_mult
    write_random_weights(config, tmp_path / "w.safetensors", torch.float32)
    write_config(config, tmp_path / "c.yaml")
    pipeline = load(version, checkpoint=tmp_path / "w.safetensors", config=tmp_path / "c.yaml", device="cpu")
    side = 64
    parameters = SamplingParameters(num_frames=2, num_steps=2, width=side, height=side).resolved_for(pipeline.config)
    frames = pipeline.generator.generate(torch.rand(1, 3, side, side) * 2 - 1, parameters, Stages())
    assert frames.shape == (2, 3, side, side)
    assert frames[0].std() > 0.01
