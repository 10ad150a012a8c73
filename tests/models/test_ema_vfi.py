"""EMA-VFI against what the original computed with a small network of deterministic weights, in float32."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sgm.benchmark.peak_memory import FusedAttention, PeakMemory
from sgm.checkpoint.loading_interpolator import CONFIGS
from sgm.models.ema_vfi import EMAVFI, Pair, empty_ema_vfi, warp
from sgm.runtime.devices import INTERPOLATOR_ACTIVATIONS
from tests.deterministic_weights import weights_for
from tests.small_models import DATA, key_list, relative_error

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(DATA / "goldens" / "ema_vfi_small.safetensors")


@pytest.fixture(scope="module")
def network() -> EMAVFI:
    network = empty_ema_vfi(CONFIGS["ours_small"])
    state = {name: weights_for(f"module.{name}", tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def pair(golden: dict[str, Tensor], network: EMAVFI) -> Pair:
    return network.encode(golden["img0"], golden["img1"])


@pytest.mark.parametrize(("release", "parameters"), [("ours", 65_662_359), ("ours_small", 14_489_815)])
def test_parameters_are_those_of_the_released_files(release: str, parameters: int) -> None:
    ours = {name: tuple(tensor.shape) for name, tensor in empty_ema_vfi(CONFIGS[release]).state_dict().items()}
    assert ours == key_list(f"ema_vfi_{release}")
    assert sum(math.prod(shape) for shape in ours.values()) == parameters


def test_what_the_encoder_knows(golden: dict[str, Tensor], pair: Pair) -> None:
    """Its levels are 8x12 and 4x6 tokens where there are windows of 7x7, so that padding and shifts count."""
    for level, appearance in enumerate(pair.features.appearance):
        assert relative_error(appearance, golden[f"appearance_{level}"]) < TOLERANCE, level
    for level, motion in zip((3, 4), pair.features.motion, strict=True):
        assert relative_error(motion, golden[f"motion_{level}"]) < TOLERANCE, level


def test_flow_and_mask(golden: dict[str, Tensor], network: EMAVFI, pair: Pair) -> None:
    coarse, _ = network.flow_at(pair, 0.5, finest=False)
    assert relative_error(coarse, golden["flow_stage0"]) < TOLERANCE
    flow, mask = network.flow_at(pair, 0.5)
    assert relative_error(flow, golden["flow"]) < TOLERANCE
    assert relative_error(mask.sigmoid(), golden["mask"]) < TOLERANCE


def test_the_frame_in_between_at_any_time(golden: dict[str, Tensor], network: EMAVFI, pair: Pair) -> None:
    assert relative_error(network.between(pair, 0.5), golden["pred"]) < TOLERANCE
    assert relative_error(network(golden["img0"], golden["img1"], 0.25), golden["pred_t025"]) < TOLERANCE


def test_pairs_in_a_batch_keep_to_themselves(golden: dict[str, Tensor], network: EMAVFI) -> None:
    """The original's test-time augmentation: the mean of a pair's result and of the same turned by 180 degrees."""
    first, second = (torch.cat([image, image.flip((2, 3))]) for image in (golden["img0"], golden["img1"]))
    upright, turned = network(first, second, 0.5)
    assert relative_error((upright + turned.flip((1, 2)))[None] / 2, golden["pred_tta"]) < TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_flows_stay_exact(golden: dict[str, Tensor], network: EMAVFI, dtype: torch.dtype) -> None:
    half = empty_ema_vfi(CONFIGS["ours_small"])
    half.load_state_dict({name: tensor.to(dtype) for name, tensor in network.state_dict().items()}, assign=True)
    made = half(golden["img0"], golden["img1"], 0.5)
    assert made.dtype == torch.float32
    assert relative_error(made, golden["pred"]) < 4 * torch.finfo(dtype).eps


def test_warping_in_half_precision_counts_pixels_exactly() -> None:
    columns = torch.arange(1024.0).expand(1, 1, 2, 1024)
    flow = torch.zeros(1, 2, 2, 1024)
    flow[:, 0] = 300.5
    moved = warp((columns % 2).half(), flow)
    assert moved.dtype == torch.float16
    assert torch.allclose(moved[..., :700].float(), torch.full((), 0.5), atol=1e-3), "halfway between two columns"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_memory_is_what_is_counted(dtype: torch.dtype) -> None:
    height, width, config = 576, 1024, CONFIGS["ours"]
    network = empty_ema_vfi(config).to(dtype)
    frame = torch.empty(1, 3, height, width, device="meta")
    with torch.inference_mode(), PeakMemory() as counted, FusedAttention():
        network(frame, frame.clone(), 0.5)
    estimate = INTERPOLATOR_ACTIVATIONS * height * width * config.channels * dtype.itemsize
    assert counted.peak == pytest.approx(estimate, rel=0.1)
