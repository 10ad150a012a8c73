"""Which memory mode is chosen, and what the choice's figures are worth: counted on models of the full size."""

import pytest
import torch

from sgm.benchmark.peak_memory import FusedAttention, PeakMemory
from sgm.config import load_config
from sgm.errors import UserError
from sgm.models.layers import FeedForward
from sgm.models.streaming import decode_streaming
from sgm.models.video_model import VideoModel
from sgm.runtime import devices as memory
from sgm.runtime.devices import MEMORY_MODES, choose_memory, needed_bytes

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GB = 1e9


@pytest.mark.parametrize(("free", "expected"), [(80, "high"), (24, "low"), (8, "low"), (5, "lowest"), (1, "lowest")])
def test_auto_takes_the_first_mode_that_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, free: float, expected: str
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: free * GB)
    assert choose_memory("auto", load_config("svd_xt"), CUDA, torch.float16) == expected
    assert choose_memory("high", load_config("svd_xt"), CUDA, torch.float16) == "high"


def test_the_bundled_models_have_room_on_a_processor() -> None:
    assert choose_memory("auto", load_config("svd_tiny"), CPU, torch.float32) == "high"


def test_as_many_clips_at_once_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    config, mode = load_config("svd_xt"), MEMORY_MODES["high"]
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * GB)
    counts = []
    for free in (1, 10, 35, 2000):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free * GB)
        counts.append(memory.clips_with_room(mode, config, CUDA, torch.float16))
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert 1 < counts[2] < counts[3] == memory.MAX_CLIPS_AT_ONCE
    count = counts[2]
    sizes = [needed_bytes(mode, config, CUDA, torch.float16, clips_at_once=n) for n in (count, count + 1)]
    assert sizes[0] <= 40 * GB < sizes[1]
    assert memory.clips_with_room(mode, config, CPU, torch.float32) == 1


def test_an_unknown_mode_is_told() -> None:
    with pytest.raises(UserError, match=r"unknown memory mode 'lo': give one of auto, high, low, lowest"):
        choose_memory("lo", load_config("svd_tiny"), CPU, torch.float32)


def test_the_free_memory_of_a_processor() -> None:
    assert 0 < memory.free_bytes(CPU) < 2**45


def test_the_free_memory_of_a_card_is_no_more_than_the_share_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[int | None] = []

    def half(index: int | None) -> float:
        shares.append(index)  # torch refuses a device without a number here
        return 0.5

    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", half)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 10)
    for free, expected in ((90, 40), (30, 30)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 100))
        assert memory.free_bytes(CUDA) == expected
    assert shares == [None, None]


def test_needs_fall_from_mode_to_mode() -> None:
    for version in ("svd", "svd_xt", "sv3d_p"):
        needs = [needed_bytes(mode, load_config(version), CUDA, torch.float16) for mode in MEMORY_MODES.values()]
        assert needs == sorted(needs, reverse=True)


def test_fp8_halves_the_weights_of_the_unet() -> None:
    config, mode = load_config("svd_xt"), MEMORY_MODES["high"]
    with_fp8, without = (needed_bytes(mode, config, CUDA, torch.float16, fp8=fp8) for fp8 in (True, False))
    assert without - with_fp8 == pytest.approx(1.1 * 1.52 * GB, rel=0.05)  # a byte each, and the share for overhead


@pytest.mark.parametrize("version", ["svd", "svd_xt", "sv3d_p"])
@pytest.mark.parametrize("mode", ["high", "low"])
def test_the_estimate_of_the_unet_is_what_is_counted(version: str, mode: str) -> None:
    """Without weights and overhead. On the meta device, where a model of full size computes nothing."""
    config, settings = load_config(version), MEMORY_MODES[mode]
    model = model_without_weights(version, settings.tokens_at_once)
    model.unet.half()
    clips = 1 if settings.guidance_in_turn else 2
    frames, height, width = clips * config.num_frames, config.height // 8, config.width // 8
    given = {
        "x": torch.empty(frames, 8, height, width, dtype=torch.float16, device="meta"),
        "noise": torch.empty(frames, device="meta"),
        "context": torch.empty(clips, 1, 1024, device="meta"),
        "vector": torch.empty(frames, config.vector_width, device="meta"),
    }
    with torch.inference_mode(), FusedAttention(), PeakMemory() as counted:
        model.unet(**given, num_frames=config.num_frames)
    factor = memory.UNET_ACTIVATIONS if mode == "high" else memory.UNET_ACTIVATIONS_IN_PARTS
    assert counted.peak == pytest.approx(factor * frames * height * width * 320 * 2, rel=0.1)


@pytest.mark.parametrize("version", ["svd_xt", "svd_xt_image_decoder"])
def test_the_estimate_of_the_decoder_is_no_less_than_what_is_counted(version: str) -> None:
    model = model_without_weights(version, None)
    one_activation = 128 * 576 * 1024 * 4
    for frames, streaming in ((14, False), (1, True)):
        latents = torch.empty(frames, 4, 72, 128, device="meta")
        with torch.inference_mode(), FusedAttention(), PeakMemory() as counted:
            if streaming:
                decode_streaming(model.first_stage, latents, 1)
            else:
                model.first_stage.decode(latents, frames)
        factor = memory.STREAMING_DECODER_ACTIVATIONS if streaming else memory.DECODER_ACTIVATIONS
        estimated = factor * frames * one_activation
        assert 0.75 * estimated < counted.peak < estimated


def model_without_weights(version: str, tokens_at_once: int | None) -> VideoModel:
    config = load_config(version)
    with torch.device("meta"):
        model = VideoModel(config).requires_grad_(False).eval()
    for module in model.modules():
        if isinstance(module, FeedForward):
            module.tokens_at_once = tokens_at_once
    return model
