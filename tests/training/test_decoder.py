"""What the decoder's training starts from, and what it may change."""

from dataclasses import replace
from pathlib import Path

import torch

from sgm.config import load_config
from sgm.models.vae import Decoder
from sgm.models.video_model import VideoModel
from sgm.training.config import load_training_config
from sgm.training.decoder import DecoderObjective, start_decoder
from sgm.training.loop import Trainer

CONFIGS = Path(__file__).parents[2] / "configs" / "training"


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
    config = replace(load_training_config(CONFIGS / "temporal_decoder.yaml"), start_from="", size=32, steps=2)
    model = VideoModel(load_config("svd_tiny"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in Trainer(model, config).run(DecoderObjective(model, config, torch.device("cpu"))):
        pass
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("first_stage.decoder.") for name in changed)
    assert all("time_" in name or "mix_factor" in name for name in changed)


def test_a_few_steps_bring_the_reconstruction_nearer() -> None:
    config = replace(load_training_config(CONFIGS / "decoder.yaml"), start_from="", size=32, num_clips=1, steps=25)
    torch.manual_seed(0)
    model = VideoModel(load_config("sv3d_tiny"))
    losses = [s.loss for s in Trainer(model, config).run(DecoderObjective(model, config, torch.device("cpu")))]
    assert losses[-1] < 0.7 * losses[0]
