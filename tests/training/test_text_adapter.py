"""Training of a text adapter: from nothing, beside weights that stay as they are, to a file that loads."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sgm.config import NO_TEXT, load_config
from sgm.errors import UserError
from sgm.generation.pipeline import load
from sgm.training import text_adapter
from sgm.training.__main__ import main, run_identity
from sgm.training.config import TrainingConfig, load_training_config
from sgm.training.denoising import DenoisingObjective
from tests.generation.prompted import PLAIN, TEXT
from tests.small_models import deterministic_state, write_config

CONFIGS = Path(__file__).parents[2] / "configs" / "training"
SMALL = replace(PLAIN, num_frames=4)


@pytest.fixture
def run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of three steps for a small svd, whose configuration is given in place of the released one."""
    monkeypatch.setattr(text_adapter, "load_config", lambda version: SMALL)
    monkeypatch.setattr(DenoisingObjective, "sheet", lambda self: torch.zeros(1, 2, 3, 8, 8))  # sampling takes long
    save_file(deterministic_state(SMALL), tmp_path / "weights.safetensors")
    config = a_run(start_from=str(tmp_path / "weights.safetensors"))
    (tmp_path / "run.yaml").write_text(json.dumps(asdict(config)))
    return tmp_path / "run.yaml"


def a_run(**changes: object) -> TrainingConfig:
    config = load_training_config(CONFIGS / "svd_tiny_prompts.yaml")
    small = {"size": 32, "num_clips": 2, "batch_size": 2, "steps": 3, "frames_per_clip": 4, "text": TEXT}
    return replace(config, **{"version": "svd", "part": "text_adapter", **small, **changes})


def test_a_run_trains_the_text_alone_and_leaves_an_adapter_that_loads(run_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main([str(run_file), f"--output_folder={out}", "--device=cpu"]) == 0
    adapter = out / "text_adapter.safetensors"
    assert not (out / "weights.safetensors").exists()
    with safe_open(adapter, "pt") as file:
        keys = {*file.keys()}
        trained = {key: file.get_tensor(key) for key in keys if ".attn_text.to_out." in key}
    assert all(key.startswith("conditioner.text.") or ".attn_text." in key for key in keys)
    assert trained
    assert all(tensor.abs().max() > 0 for tensor in trained.values()), "they start at zero"
    given = {"checkpoint": tmp_path / "weights.safetensors", "config": write_config(SMALL, tmp_path / "svd.yaml")}
    plain, reading = load("svd", **given), load("svd", **given, text_adapter=adapter)
    for name, tensor in plain.generator.model.state_dict().items():
        assert tensor.is_meta or torch.equal(reading.generator.model.state_dict()[name], tensor), name
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(reading(pixels).frames, plain(pixels).frames)


def test_at_first_it_adds_nothing_and_nothing_else_learns(run_file: Path) -> None:
    config = load_training_config(run_file)
    model = text_adapter.start_text_adapter(config)
    DenoisingObjective(model, config, torch.device("cpu"))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {name for name in model.state_dict() if "attn_text" in name or "conditioner.text" in name}
    torch.manual_seed(2)
    x, vector = torch.randn(4, 2 * SMALL.vae.latent_channels, 4, 4), torch.randn(4, SMALL.vector_width)
    image, text = torch.randn(1, 1, SMALL.unet.context_dim), torch.randn(1, TEXT.tokens, SMALL.unet.context_dim)
    with torch.no_grad():
        without = model.unet(x, torch.zeros(4), image, vector, 4)
        assert torch.equal(model.unet(x, torch.zeros(4), torch.cat([image, text], dim=1), vector, 4), without)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"version": "sv3d_p"}, "sv3d_p takes no text adapter"),
        ({"version": "svd_tiny_next"}, "svd_tiny_next takes no text adapter"),
        ({"start_from": ""}, "give the version's own as start_from"),
        ({"text": NO_TEXT}, "it has no tokens"),
        ({"text": replace(TEXT, heads=3)}, "its width 16 is not divisible by its heads"),
        ({}, "no checkpoint nowhere"),
    ],
)
def test_what_cannot_be_trained(changes: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        text_adapter.start_text_adapter(a_run(**{"start_from": "nowhere.safetensors", **changes}))


def test_states_of_other_runs_are_gone_on_from_as_before() -> None:
    config = load_training_config(CONFIGS / "decoder.yaml")
    assert "text" not in run_identity(config)
    assert run_identity(a_run(start_from=""))["text"] == asdict(TEXT)
    assert load_config("svd").text == NO_TEXT
