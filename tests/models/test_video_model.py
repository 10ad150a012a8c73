"""What must hold of the modules together: clips don't see each other, frames that should, do."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sgm.models.video_model import VideoModel, empty_model
from tests.small_models import deterministic_model, miniature_config


@pytest.fixture(scope="module", params=["svd", "svd_image_decoder", "sv3d_p"])
def model(request: pytest.FixtureRequest) -> VideoModel:
    return deterministic_model(miniature_config(request.param))


def test_a_batch_of_clips_is_the_clips_alone(model: VideoModel) -> None:
    t = 3
    x, noise = torch.randn(2 * t, 8, 8, 8), torch.randn(2 * t)
    context, vector = torch.randn(2, 1, 32), torch.randn(2 * t, model.config.vector_width)
    together = model.unet(x, noise, context, vector, t)
    for clip, frames in enumerate((slice(0, t), slice(t, 2 * t))):
        alone = model.unet(x[frames], noise[frames], context[clip : clip + 1], vector[frames], t)
        torch.testing.assert_close(together[frames], alone)


def test_every_frame_sees_every_other(model: VideoModel) -> None:
    x, noise = torch.randn(3, 8, 8, 8), torch.zeros(3)
    context, vector = torch.randn(1, 1, 32), torch.zeros(3, model.config.vector_width)
    before = model.unet(x, noise, context, vector, 3)
    x[2] += 1
    changed = (model.unet(x, noise, context, vector, 3) - before).abs().amax((1, 2, 3))
    assert (changed > 1e-4).all()


def test_conditions_of_the_unguided_side(model: VideoModel) -> None:
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    values = {"fps_id": 6, "motion_bucket_id": 127, "polar_rad": torch.ones(3), "azimuth_rad": torch.arange(3.0)}
    conditions = model.conditioner(image, torch.zeros_like(image), 0.02, values, 3)
    unguided = conditions.unconditional()
    assert not unguided.crossattn.any()
    assert not unguided.concat.any()
    assert torch.equal(unguided.vector, conditions.vector)


def test_noise_reaches_the_autoencoder_and_not_the_tower(model: VideoModel) -> None:
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    values = {"fps_id": 6, "motion_bucket_id": 127, "polar_rad": 1.0, "azimuth_rad": 0.0}
    clean, noised = (model.conditioner(image, torch.randn_like(image), aug, values, 3) for aug in (0.0, 0.5))
    assert torch.equal(clean.crossattn, noised.crossattn)
    assert not torch.allclose(clean.concat, noised.concat, atol=1e-2)
    assert torch.equal(clean.concat, model.conditioner.vae.encode(image).expand(3, -1, -1, -1))


def test_an_empty_model_has_the_names_and_shapes_of_one_with_numbers() -> None:
    config = miniature_config("svd")
    full, empty = VideoModel(config).state_dict(), empty_model(config).state_dict()
    assert {name: (t.shape, t.dtype) for name, t in empty.items()} == {n: (t.shape, t.dtype) for n, t in full.items()}
    assert all(tensor.is_meta for tensor in empty.values())
    assert torch.nn.Linear(4, 4).weight.any(), "what is built afterwards is initialised again"


def test_neither_an_empty_model_nor_a_reshape_imports_the_compiler() -> None:
    """More than a second each: einops did until 0.8.2."""
    script = (
        "import sys\nfrom sgm.config import load_config\nfrom sgm.models.video_model import empty_model\n"
        "empty_model(load_config('svd_tiny'))\n"
        "import torch\nfrom sgm.models.layers import frames_to_clips\nframes_to_clips(torch.zeros(2, 4, 3, 3), 2)\n"
        "print(*sys.modules)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert "sgm.models.conditioner" in done.stdout.split()
    assert "torch._dynamo" not in done.stdout.split()
