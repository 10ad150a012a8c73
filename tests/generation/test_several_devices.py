"""One clip of several processes: to the bit that of one, whichever helper fails or is left alone."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sgm.config import GuidanceConfig
from sgm.errors import UserError
from sgm.generation import loading
from sgm.generation.pipeline import Pipeline, load
from sgm.parameters.sampling import SamplingParameters
from sgm.stages import Stages
from tests.small_models import deterministic_state, miniature_config, relative_error, write_config

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
CLIP = {"num_frames": 5, "num_steps": 2, "decoding_t": 2, "seed": 1, "enhance": "none"}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"sampler": "heun", "cache_interval": 2, "guidance_interval": [1, 100]},
]


class Files(NamedTuple):
    checkpoint: Path
    guided: Path
    unguided: Path

    def load(self, guided: bool, device: str, memory: str) -> Pipeline:
        config = self.guided if guided else self.unguided
        return load("svd", checkpoint=self.checkpoint, config=config, device=device, memory=memory)


class Together(NamedTuple):
    """Processes that share the work, one that does the same in turn, and one that does as much at once as it can."""

    pipeline: Pipeline
    in_turn: Pipeline
    at_once: Pipeline
    tolerance: float


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Of a small svd, with and without guidance."""
    folder = tmp_path_factory.mktemp("svd")
    guided = miniature_config("svd")
    unguided = dataclasses.replace(guided, guidance=GuidanceConfig("linear", 1.0, 1.0))
    save_file(deterministic_state(guided), folder / "weights.safetensors")
    configs = [write_config(config, folder / f"{n}.yaml") for n, config in enumerate((guided, unguided))]
    return Files(folder / "weights.safetensors", *configs)


FRAMES_ALONE = pytest.param((3, False), id="frames", marks=pytest.mark.slow)  # as svd_tiny in tests/batch


@pytest.fixture(
    scope="module", params=[pytest.param((2, True), id="halves"), pytest.param((4, True), id="both"), FRAMES_ALONE]
)
def together(request: pytest.FixtureRequest, files: Files) -> Iterator[Together]:
    """Two halves of guidance; halves whose frames are shared as well; frames alone."""
    count, guided = request.param
    pipeline = files.load(guided, ",".join(["cpu"] * count), "high")
    in_turn, at_once = (files.load(guided, "cpu", memory) for memory in ("low", "high"))
    yield Together(pipeline, in_turn, at_once, 0.0 if count == 2 else 1e-4)
    pipeline.close()


def latents(pipeline: Pipeline, **sampling: Any) -> torch.Tensor:
    settings = SamplingParameters(**{**CLIP, **sampling}).resolved_for(pipeline.config)
    (take,) = pipeline.take([pipeline.prepare(PICTURE, settings)])
    return take.latents


def decoded(pipeline: Pipeline, given: torch.Tensor, **sampling: Any) -> torch.Tensor:
    settings = SamplingParameters(**{**CLIP, **sampling}).resolved_for(pipeline.config)
    return torch.cat(list(pipeline.generator.decode(given, torch.zeros(1, 3, 32, 32), settings, Stages())))


def test_out_of_memory_on_one_all_go_on_in_a_lower_mode(
    files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first test, before `together` is there: a process has one group at a time."""
    monkeypatch.setattr(loading, "HELPER", "tests.generation.failing_helper")
    pipeline = files.load(True, "cpu,cpu", "high")
    try:
        assert torch.equal(latents(pipeline), latents(files.load(True, "cpu", "low")))
    finally:
        pipeline.close()
    assert pipeline.generator.placement.name == "low"
    assert capsys.readouterr().err == "warning: out of memory while sampling; retrying with --memory low\n"


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_latents_are_those_of_one_process(together: Together, variant: dict[str, Any]) -> None:
    """To the bit where each rank computes whole clips, else to the rounding of sums over frames."""
    ours, expected = (latents(pipeline, **variant) for pipeline in (together.pipeline, together.in_turn))
    assert relative_error(ours, expected) <= together.tolerance


def test_clips_of_a_batch_go_together(together: Together) -> None:
    every = []
    for pipeline in (together.pipeline, together.in_turn):
        settings = [SamplingParameters(**{**CLIP, "seed": seed}).resolved_for(pipeline.config) for seed in (1, 2)]
        takes = pipeline.take([pipeline.prepare(PICTURE, of_clip) for of_clip in settings])
        every.append(torch.cat([take.latents for take in takes]))
    assert relative_error(*every) <= together.tolerance


@pytest.mark.parametrize("variant", [{}, {"decode": "seamless"}, {"decoding_t": 1}], ids=str)
def test_frames_are_those_of_one_process_to_the_bit(together: Together, variant: dict[str, Any]) -> None:
    given = torch.randn(5, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    ours, expected = (decoded(pipeline, given, **variant) for pipeline in (together.pipeline, together.at_once))
    assert torch.equal(ours, expected)


def test_a_clip_that_is_left_is_no_hindrance_to_the_next(together: Together) -> None:
    def stop(sigma: float, _: torch.Tensor) -> None:
        raise KeyError(sigma)

    before = latents(together.pipeline)
    with pytest.raises(KeyError):
        together.pipeline(PICTURE, watch=stop, **CLIP)
    settings = SamplingParameters(**CLIP).resolved_for(together.pipeline.config)
    (take,) = together.pipeline.take([together.pipeline.prepare(PICTURE, settings)])
    next(take.frames())  # and no others
    assert torch.equal(latents(together.pipeline), before)


def test_its_record_tells_of_them(together: Together) -> None:
    record = together.pipeline(PICTURE, **CLIP).record
    assert together.pipeline.generator.ranks is not None
    assert record["ranks"] == together.pipeline.generator.ranks.size
    assert record["device"] == "cpu", "as of a clip that one process has made"


def test_fewer_frames_than_ranks(together: Together) -> None:
    assert together.pipeline.generator.group is not None
    if together.pipeline.generator.group.size > 1:
        with pytest.raises(UserError, match="devices can't share so few frames"):
            together.pipeline(PICTURE, **{**CLIP, "num_frames": 1})
    assert together.pipeline(PICTURE, **CLIP).frames.shape[0] == 5


def test_devices_that_can_not_share_the_work(files: Files) -> None:
    with pytest.raises(UserError, match="3 devices can't share guidance's two halves: give 2, 4, 6 or 8"):
        files.load(True, "cpu,cpu,cpu", "high")
    with pytest.raises(UserError, match="between devices can't be compiled: omit compile, or give fewer"):
        load("svd", checkpoint=files.checkpoint, config=files.guided, device="cpu,cpu,cpu,cpu", compile=True)
