"""Weights that come and go, on a processor that is taken for a device with a memory of its own.

A copy is then a clone, so that what is copied, and when, shows.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from sgm.models.layers import FeedForward
from sgm.models.unet import Stage
from sgm.models.video_model import VideoModel
from sgm.runtime import devices as memory
from sgm.runtime import offloading
from sgm.runtime.fp8 import use_fp8
from sgm.runtime.offloading import Placement
from tests.small_models import deterministic_model, miniature_config, relative_error

CPU = torch.device("cpu")


@pytest.fixture
def model() -> VideoModel:
    return deterministic_model(miniature_config("svd"))


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """Every copy that is made."""
    made: list[Tensor] = []

    def copy(tensor: Tensor, device: torch.device) -> Tensor:
        made.append(tensor.clone())
        return made[-1]

    monkeypatch.setattr(offloading, "_copy", copy)
    for module in (offloading, memory):
        monkeypatch.setattr(module, "has_own_memory", lambda device: True)
    return made


def run_unet(model: VideoModel) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 8, 8, 8, generator=generator)
    vector = torch.randn(3, model.config.vector_width, generator=generator)
    with torch.inference_mode():
        return model.unet(x, torch.zeros(3), torch.randn(1, 1, 32, generator=generator), vector, 3)


@torch.inference_mode()
def run_at_work(placed: Placement) -> Tensor:
    with placed.at_work(placed.model.unet):
        return run_unet(placed.model)


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("mode", memory.MEMORY_MODES)
def test_every_mode_gives_the_same(model: VideoModel, copies: list[Tensor], mode: str, fp8: bool) -> None:
    if fp8:
        use_fp8(model.unet, linears=True)
    plain = run_unet(model)
    placed = Placement(model, CPU, mode)
    for _ in range(2):
        assert relative_error(run_at_work(placed), plain) < 1e-5
    assert relative_error(run_unet(model), plain) < 1e-5  # afterwards all are at home, unchanged
    assert copies


def test_low_borrows_the_part_at_work(model: VideoModel, copies: list[Tensor]) -> None:
    homes = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    with Placement(model, CPU, "low").at_work(model.unet):
        borrowed = {name for name, p in model.named_parameters() if p.data_ptr() != homes[name]}
        assert borrowed == {name for name in homes if name.startswith("unet.")}
    assert homes == {name: parameter.data_ptr() for name, parameter in model.named_parameters()}


def test_lowest_has_two_stages_at_a_time(model: VideoModel, copies: list[Tensor]) -> None:
    homes = {id(parameter): parameter.data_ptr() for parameter in model.parameters()}
    stages = [module for module in model.unet.modules() if isinstance(module, Stage)]
    there: list[list[int]] = []

    def look(*_: object) -> None:
        there.append([i for i, s in enumerate(stages) if any(p.data_ptr() != homes[id(p)] for p in s.parameters())])

    for stage in stages:
        stage[0].register_forward_hook(look)
    run_at_work(Placement(model, CPU, "lowest"))
    last = len(stages) - 1
    assert there == [sorted([stage, (stage + 1) % (last + 1)]) for stage in range(last + 1)]


def test_an_error_at_work_leaves_all_at_home(model: VideoModel, copies: list[Tensor]) -> None:
    homes = [parameter.data_ptr() for parameter in model.parameters()]
    model.unet.middle_block.register_forward_pre_hook(raise_out_of_memory)
    for mode in ("low", "lowest"):
        with pytest.raises(RuntimeError, match="out of memory"):
            run_at_work(Placement(model, CPU, mode))
        assert homes == [parameter.data_ptr() for parameter in model.parameters()]


def test_lowering(model: VideoModel) -> None:
    placed = Placement(model, CPU, "high")
    chunks = [module for module in model.modules() if isinstance(module, FeedForward)]
    assert all(module.tokens_at_once is None for module in chunks)
    names = [placed.name]
    while placed.can_lower:
        placed.lower()
        names.append(placed.name)
        assert all(module.tokens_at_once == memory.TOKENS_AT_ONCE for module in chunks)
    assert names == ["high", "low", "lowest"]


def test_a_kind_of_clip_that_was_too_large_does_not_slow_the_others(model: VideoModel) -> None:
    placed = Placement(model, CPU, "high")
    names = []
    for kind in ("small", "large", "small", "large"):
        placed.use_for(kind)
        if kind == "large" and placed.name == "high":
            placed.lower()
        names.append(placed.name)
    assert names == ["high", "low", "high", "low"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no cuda")
@pytest.mark.parametrize("mode", memory.MEMORY_MODES)
def test_on_a_device_with_its_own_memory(model: VideoModel, mode: str) -> None:
    cuda = torch.device("cuda")
    plain = run_unet(model)
    placed = Placement(model, cuda, mode)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 8, 8, 8, generator=generator).to(cuda)
    vector = torch.randn(3, model.config.vector_width, generator=generator).to(cuda)
    context = torch.randn(1, 1, 32, generator=generator).to(cuda)
    for _ in range(3):
        with torch.inference_mode(), placed.at_work(model.unet):
            result = model.unet(x, torch.zeros(3, device=cuda), context, vector, 3)
        assert relative_error(result.cpu(), plain) < 1e-3


def raise_out_of_memory(*_: object) -> None:
    raise RuntimeError("CUDA out of memory (by a test)")
