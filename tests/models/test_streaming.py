"""Decoding layer by layer against decoding all frames at once."""

import pytest
import torch
from torch import Tensor

from sgm.models.streaming import decode_streaming
from sgm.models.video_model import VideoModel
from tests.small_models import (
    deterministic_model,
    miniature_config,
    read_golden,
    relative_error,
    with_small_tower,
)


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return deterministic_model(with_small_tower(read_golden("svd").config))


def latents_of(frames: int) -> Tensor:
    return torch.randn(frames, 4, 6, 5, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize("frames", [1, 2, 5, 9])
@pytest.mark.parametrize("at_once", [1, 2, 3, 20])
@torch.inference_mode()
def test_equals_decoding_all_frames_at_once(model: VideoModel, frames: int, at_once: int) -> None:
    latents = latents_of(frames)
    whole = model.first_stage.decode(latents, frames)
    assert relative_error(decode_streaming(model.first_stage, latents, at_once), whole) < 1e-5


@torch.inference_mode()
def test_what_it_equals_is_not_what_chunks_give(model: VideoModel) -> None:
    """Else the test above would show nothing: a chunk by itself differs by far more."""
    latents = latents_of(9)
    chunked = torch.cat([model.first_stage.decode(part, 3) for part in latents.split(3)])
    assert relative_error(chunked, model.first_stage.decode(latents, 9)) > 1e-3


@torch.inference_mode()
def test_golden(model: VideoModel) -> None:
    golden = read_golden("svd")
    assert relative_error(decode_streaming(model.first_stage, golden["vae_in"], 2), golden["vae_out"]) < 1e-4


@torch.inference_mode()
def test_an_image_decoder_s_frames_are_their_own() -> None:
    autoencoder = deterministic_model(miniature_config("sv3d_u")).first_stage
    latents = latents_of(5)
    whole = autoencoder.decode(latents, 5)
    torch.testing.assert_close(decode_streaming(autoencoder, latents, 2), whole, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_no_layer_sees_many_pixels(model: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 12 frames each convolution is given the two that are asked for, or the sixth part of the rows of all."""
    frames_at_once, pixels_of_all_frames = set(), set()
    conv2d = torch.nn.functional.conv2d

    def watching(x: Tensor, weight: Tensor, *args: object, **kwargs: object) -> Tensor:
        over_frames = weight.shape[2:] == (3, 1)
        (pixels_of_all_frames if over_frames else frames_at_once).add(x.shape[3] if over_frames else x.shape[0])
        return conv2d(x, weight, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "conv2d", watching)
    monkeypatch.setattr(
        torch.nn.Conv2d, "_conv_forward", lambda self, x, w, b: watching(x, w, b, self.stride, self.padding)
    )
    decode_streaming(model.first_stage, latents_of(12), 2)
    assert frames_at_once == {2}
    assert pixels_of_all_frames == {size * size * 5 for size in (1, 2, 4, 8)}  # of 6x5, 12x10, 24x20, 48x40
