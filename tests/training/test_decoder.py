"""What the decoder's training starts from, and what it may change."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sgm.config import load_config
from sgm.models.vae import Decoder
from sgm.models.video_model import VideoModel
from sgm.training.config import TrainingConfig, load_training_config
from sgm.training.decoder import DecoderObjective, start_decoder
from sgm.training.loop import Trainer

CONFIGS = Path(__file__).parents[2] / "configs" / "training"


def small_temporal_run() -> TrainingConfig:
    return replace(load_training_config(CONFIGS / "temporal_decoder.yaml"), start_from="", size=32)


def test_a_video_decoder_starts_as_its_image_decoder() -> None:
    vae = load_config("svd_tiny").vae
    torch.manual_seed(0)
    image, video = Decoder(vae, temporal=False), Decoder(vae, temporal=True)
    start_decoder(image)
    for name, parameter in image.named_parameters():  # as after training: the branches speak
        if "conv2" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    start_decoder(video)
    video.load_state_dict(image.state_dict(), strict=False)
    latents = torch.randn(4, 16, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(video(latents, 4), image(latents, 1), rtol=1e-4, atol=1e-5)


def test_the_temporal_run_changes_the_temporal_layers_only() -> None:
    config = replace(small_temporal_run(), steps=2)
    model = VideoModel(load_config("svd_tiny"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in Trainer(model, config).run(DecoderObjective(model, config, torch.device("cpu"))):
        pass
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("first_stage.decoder.") for name in changed)
    assert all("time_" in name or "mix_factor" in name for name in changed)


@pytest.mark.parametrize("latent_error", [0.0, 0.2])
def test_latent_errors_are_noise_and_offsets_of_frames_as_strong_as_each_clip_draws(latent_error: float) -> None:
    config = replace(small_temporal_run(), latent_error=latent_error, batch_size=400)
    made = DecoderObjective(VideoModel(load_config("svd_tiny")), config, torch.device("cpu"))
    errors = made.latent_errors(torch.Size((1200, 16, 8, 8)), 1).unflatten(0, (400, 3))
    offsets = errors.mean((3, 4))
    noise = errors - offsets[..., None, None]
    noise_strengths, offset_strengths = noise.std((1, 2, 3, 4)), offsets.std((1, 2))
    torch.testing.assert_close(offset_strengths, noise_strengths, rtol=0.5, atol=1e-6)
    for strengths in (noise_strengths, offset_strengths):  # uniform from 0 on
        torch.testing.assert_close(strengths.mean(), torch.tensor(latent_error / 2), rtol=0.1, atol=0)
        assert strengths.max() <= 1.5 * latent_error
        assert strengths.min() <= 0.1 * latent_error
    assert not errors.any() or (made.latent_errors(torch.Size((1200, 16, 8, 8)), 2) != errors.flatten(0, 1)).any()


def test_what_is_decoded_has_the_steps_errors() -> None:
    config = replace(small_temporal_run(), latent_error=0.5)
    model = VideoModel(load_config("svd_tiny"))
    made = DecoderObjective(model, config, torch.device("cpu"))
    pictures = made.pictures(3)
    with torch.no_grad():
        latents = model.conditioner.vae.encode(pictures) * model.first_stage.scale_factor
        expected = model.first_stage.decode(latents + made.latent_errors(latents.shape, 3), 14)
        torch.testing.assert_close(made.reconstruct(pictures, 3), expected)
        assert made(3).item() == pytest.approx((expected - pictures).abs().mean().item(), rel=1e-5)


def test_a_few_steps_bring_the_reconstruction_nearer() -> None:
    config = replace(load_training_config(CONFIGS / "decoder.yaml"), start_from="", size=32, num_clips=1, steps=25)
    torch.manual_seed(0)
    model = VideoModel(load_config("sv3d_tiny"))
    losses = [s.loss for s in Trainer(model, config).run(DecoderObjective(model, config, torch.device("cpu")))]
    assert losses[-1] < 0.7 * losses[0]
