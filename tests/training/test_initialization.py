"""What a run takes from the run before it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sgm.config import load_config
from sgm.errors import UserError
from sgm.models.video_model import VideoModel
from sgm.training.__main__ import save_weights
from sgm.training.initialization import take_weights


def test_the_autoencoder_goes_over_to_another_version(tmp_path: Path) -> None:
    torch.manual_seed(0)
    orbit_model, video_model = VideoModel(load_config("sv3d_tiny")), VideoModel(load_config("svd_tiny"))
    save_weights(orbit_model, tmp_path / "weights.safetensors")
    temporal = {name: tensor.clone() for name, tensor in video_model.state_dict().items() if "time_" in name}
    take_weights(video_model, tmp_path / "weights.safetensors")
    taken = video_model.state_dict()
    for name, tensor in orbit_model.state_dict().items():
        if name.startswith(("conditioner.vae.", "first_stage.decoder.")):
            torch.testing.assert_close(taken[name], tensor.half().float(), rtol=0, atol=0)
    for name, tensor in temporal.items():
        if name.startswith("first_stage."):
            assert torch.equal(taken[name], tensor)


def test_weights_without_the_autoencoder(tmp_path: Path) -> None:
    model = VideoModel(load_config("sv3d_tiny"))
    save_weights(model, tmp_path / "weights.safetensors")
    tensors = load_file(tmp_path / "weights.safetensors")
    del tensors["first_stage_model.decoder.conv_in.weight"]
    save_file(tensors, tmp_path / "partial.safetensors")
    with pytest.raises(UserError, match=r"it has no first_stage_model\.decoder\.conv_in\.weight"):
        take_weights(model, tmp_path / "partial.safetensors")


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.safetensors to start from: run the previous training first"):
        take_weights(VideoModel(load_config("sv3d_tiny")), tmp_path / "none.safetensors")
