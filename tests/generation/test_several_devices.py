"""One clip of several processes: to the bit that of one, whichever helper fails or is left alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sgm.generation import loading
from sgm.generation.pipeline import Pipeline, load
from sgm.parameters.sampling import SamplingParameters
from sgm.stages import Stages
from tests.small_models import deterministic_state, miniature_config, write_config

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
CLIP = {"num_frames": 5, "num_steps": 2, "decoding_t": 2, "seed": 1, "enhance": "none"}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"sampler": "heun", "cache_interval": 2, "guidance_interval": [1, 100]},
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of a small svd, with its guidance."""
    folder = tmp_path_factory.mktemp("svd")
    config = miniature_config("svd")
    assert config.guidance.max_scale > 1
    save_file(deterministic_state(config), folder / "weights.safetensors")
    return {"checkpoint": folder / "weights.safetensors", "config": write_config(config, folder / "config.yaml")}


@pytest.fixture(scope="module")
def alone(files: dict[str, Path]) -> Pipeline:
    """One process that computes guidance's halves in turn."""
    return load("svd", **files, device="cpu", memory="low")


@pytest.fixture(scope="module")
def at_once(files: dict[str, Path]) -> Pipeline:
    """One process that computes as much at once as it can."""
    return load("svd", **files, device="cpu", memory="high")


@pytest.fixture(scope="module", params=[2, 4])
def together(request: pytest.FixtureRequest, files: dict[str, Path]) -> Iterator[Pipeline]:
    pipeline = load("svd", **files, device=",".join(["cpu"] * request.param), memory="high")
    yield pipeline
    pipeline.close()


def latents(pipeline: Pipeline, **sampling: Any) -> torch.Tensor:
    settings = SamplingParameters(**{**CLIP, **sampling}).resolved_for(pipeline.config)
    (take,) = pipeline.take([pipeline.prepare(PICTURE, settings)])
    return take.latents


def decoded(pipeline: Pipeline, given: torch.Tensor, **sampling: Any) -> torch.Tensor:
    settings = SamplingParameters(**{**CLIP, **sampling}).resolved_for(pipeline.config)
    return torch.cat(list(pipeline.generator.decode(given, torch.zeros(1, 3, 32, 32), settings, Stages())))


def test_out_of_memory_on_one_all_go_on_in_a_lower_mode(
    files: dict[str, Path], alone: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first test, before `together` is there: a process has one group at a time."""
    monkeypatch.setattr(loading, "HELPER", "tests.generation.failing_helper")
    pipeline = load("svd", **files, device="cpu,cpu", memory="high")
    try:
        assert torch.equal(latents(pipeline), latents(alone))
    finally:
        pipeline.close()
    assert pipeline.generator.placement.name == "low"
    assert capsys.readouterr().err == "warning: out of memory while sampling; retrying with --memory low\n"


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_latents_are_those_of_one_process_to_the_bit(
    alone: Pipeline, together: Pipeline, variant: dict[str, Any]
) -> None:
    assert torch.equal(latents(together, **variant), latents(alone, **variant))


def test_clips_of_a_batch_go_together(alone: Pipeline, together: Pipeline) -> None:
    every = []
    for pipeline in (alone, together):
        settings = [SamplingParameters(**{**CLIP, "seed": seed}).resolved_for(pipeline.config) for seed in (1, 2)]
        takes = pipeline.take([pipeline.prepare(PICTURE, of_clip) for of_clip in settings])
        every.append(torch.cat([take.latents for take in takes]))
    assert torch.equal(*every)


@pytest.mark.parametrize("variant", [{}, {"decode": "seamless"}, {"decoding_t": 1}], ids=str)
def test_frames_are_those_of_one_process_to_the_bit(
    at_once: Pipeline, together: Pipeline, variant: dict[str, Any]
) -> None:
    given = torch.randn(5, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(decoded(together, given, **variant), decoded(at_once, given, **variant))


def test_a_clip_that_is_left_is_no_hindrance_to_the_next(alone: Pipeline, together: Pipeline) -> None:
    def stop(sigma: float, _: torch.Tensor) -> None:
        raise KeyError(sigma)

    with pytest.raises(KeyError):
        together(PICTURE, watch=stop, **CLIP)
    (take,) = together.take([together.prepare(PICTURE, SamplingParameters(**CLIP).resolved_for(together.config))])
    next(take.frames())  # and no others
    assert torch.equal(latents(together), latents(alone))


def test_its_record_tells_of_them(together: Pipeline) -> None:
    record = together(PICTURE, **CLIP).record
    assert together.generator.ranks is not None
    assert record["ranks"] == together.generator.ranks.size
    assert record["device"] == "cpu", "as of a clip that one process has made"
