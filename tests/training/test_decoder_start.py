"""The decoder that is set in closed form, against the best linear map, and what training must not change in it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sgm.data.clips import to_tensor, training_varied_still
from sgm.models.video_model import VideoModel
from sgm.training import decoder_start, encoder
from sgm.training.__main__ import build_model
from sgm.training.config import load_training_config
from sgm.training.decoder import DecoderObjective
from sgm.training.loop import Trainer

RUN = Path(__file__).parents[2] / "configs" / "training" / "svd_tiny_autoencoder.yaml"
NUM_PICTURES = 60


@pytest.fixture(scope="module")
def fitted() -> VideoModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "NUM_PICTURES", 150)
        patch.setattr(decoder_start, "NUM_PICTURES", NUM_PICTURES)
        return build_model(load_training_config(RUN)).requires_grad_(False)


def stills(numbers: range) -> torch.Tensor:
    return to_tensor(np.concatenate([training_varied_still(number, 64, 1).frames for number in numbers]))


def mean_squared_error(copies: torch.Tensor, pictures: torch.Tensor) -> float:
    return (copies.clamp(-1, 1) - pictures).square().mean().item()


def blocks(pictures: torch.Tensor) -> np.ndarray:
    return F.pixel_unshuffle(pictures, 8).permute(0, 2, 3, 1).flatten(0, 2).double().numpy()


def test_it_restores_nearly_what_the_latents_tell_of_each_block(fitted: VideoModel) -> None:
    """A decoder that only repeats and convolves linearly has more than twice the error of the best map."""
    seen, unseen = stills(range(NUM_PICTURES)), stills(range(1000, 1040))
    codes = [fitted.conditioner.vae.encode(pictures) for pictures in (seen, unseen)]
    rows = [
        np.pad(code.permute(0, 2, 3, 1).flatten(0, 2).double().numpy(), ((0, 0), (0, 1)), constant_values=1)
        for code in codes
    ]
    solution, *_ = np.linalg.lstsq(rows[0], blocks(seen), rcond=None)
    best = np.square(np.clip(rows[1] @ solution, -1, 1) - blocks(unseen)).mean()
    restored = fitted.first_stage.decode(codes[1], 1)
    assert mean_squared_error(restored, unseen) < 1.7 * best
    moved = (restored.clamp(-1, 1) - unseen).mean((2, 3)).abs() * 127.5
    assert moved.mean() < 1.0


def test_it_knows_left_from_right_and_upper_from_lower_pixels(fitted: VideoModel) -> None:
    decoder = fitted.first_stage.decoder
    assert decoder is not None
    x = decoder.conv_in(fitted.conditioner.vae.encode(stills(range(2000, 2001))))
    levels = list(reversed(decoder.up))
    for layer in (*decoder.mid.layers(), *levels[0].block):
        x = layer(x) if layer is decoder.mid.attn_1 else layer(x, 1)
    for below, level, channels in zip(
        levels, levels[1:], (decoder_start.QUARTER, decoder_start.HALF, decoder_start.WHOLE), strict=False
    ):
        first, last = level.block
        x = first(below.upsample(x), 1)
        across, down = x[0, channels.count[0]], x[0, channels.count[2]]
        assert (across[:, 0::2] > 0).all()
        assert (across[:, 1::2] < 0).all()
        assert (down[0::2] > 0).all()
        assert (down[1::2] < 0).all()
        x = last(x, 1)


def test_frames_of_a_clip_start_as_if_they_were_alone(fitted: VideoModel) -> None:
    latents = torch.randn(4, 32, 4, 4, generator=torch.Generator().manual_seed(0))
    together, alone = (
        fitted.first_stage.decode(latents, 4),
        [fitted.first_stage.decode(one[None], 1) for one in latents],
    )
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-3)


def test_training_makes_it_better_and_leaves_the_anchors_and_marks_alone(fitted: VideoModel) -> None:
    config = replace(load_training_config(RUN), size=32, num_clips=2, steps=30, batch_size=2)
    decoder = fitted.first_stage.decoder
    assert decoder is not None
    before = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    objective = DecoderObjective(fitted, config, torch.device("cpu"))
    losses = [step.loss for step in Trainer(fitted, config).run(objective)]
    assert losses[-1] < losses[0]
    after = decoder.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"conv_in.weight", "up.2.block.1.conv2.weight", "up.0.block.0.conv1.weight"} <= changed
    for conv in ("up.3.upsample.conv", "up.2.upsample.conv", "up.1.upsample.conv", "conv_in"):
        assert torch.equal(after[f"{conv}.bias"][-2:], torch.tensor([100.0, -100.0]))
        assert not after[f"{conv}.weight"][-2:].any()
    counts = list(decoder_start.QUARTER.count)
    assert torch.equal(after["up.2.block.0.conv2.weight"][counts], before["up.2.block.0.conv2.weight"][counts])


def test_the_temporal_layers_learn_beside_the_anchors_and_marks(fitted: VideoModel) -> None:
    run = load_training_config(RUN.with_name("svd_tiny_temporal_decoder.yaml"))
    config = replace(run, start_from="", size=32, steps=3, batch_size=1)
    before = {name: tensor.clone() for name, tensor in fitted.state_dict().items()}
    objective = DecoderObjective(fitted, config, torch.device("cpu"))
    for _ in Trainer(fitted, config).run(objective):
        pass
    after = fitted.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("time_" in name or "mix_factor" in name for name in changed)
    written = after["first_stage.decoder.up.2.block.0.time_stack.out_layers.3.weight"]
    assert written[list(decoder_start.QUARTER.detail)].any()
    assert not written[[*decoder_start.QUARTER.mark, *decoder_start.QUARTER.count, -2, -1]].any()
