"""Weights and products of 8 bits, against the same numbers in full precision."""

import copy

import pytest
import torch
from torch import Tensor, nn

from sgm.errors import UserError
from sgm.models.unet import Stage, VideoUNet
from sgm.runtime.devices import check_fp8
from sgm.runtime.fp8 import FP8, Fp8Linear, StoredInFp8, to_fp8, use_fp8
from tests.small_models import deterministic_model, miniature_config, relative_error

HALF_A_STEP = 2**-4  # of 3 bits of mantissa, relative to the number


@pytest.fixture(scope="module")
def unet() -> VideoUNet:
    return deterministic_model(miniature_config("svd")).unet


def run(unet: VideoUNet) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(3, 8, 8, 8, generator=generator), torch.randn(1, 1, 32, generator=generator)
    vector = torch.randn(3, unet.label_emb[0][0].in_features, generator=generator)
    with torch.inference_mode():
        return unet(x.to(unet.dtype), torch.zeros(3), context, vector, 3).float()


def weights_in(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters() if parameter.ndim > 1)


def test_each_row_is_kept_to_three_bits_of_its_largest_number() -> None:
    rows = torch.randn(50, 3, 7) * torch.logspace(-8, 8, 50)[:, None, None]
    kept, scale = to_fp8(rows)
    assert kept.dtype == FP8
    assert scale.shape == (50, 1, 1)
    again = kept.double() * scale.double()
    smallest_normal = 2**-6 * scale.double()
    assert ((again - rows).abs() <= (HALF_A_STEP + 1e-6) * rows.abs().double().maximum(smallest_normal)).all()
    torch.testing.assert_close(again.abs().amax((1, 2)).float(), rows.abs().amax((1, 2)))


def test_a_row_of_zeros_stays_one() -> None:
    kept, scale = to_fp8(torch.zeros(2, 4))
    assert torch.equal(kept.float() * scale, torch.zeros(2, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_take_a_byte_each_and_compute_in_the_precision_of_the_network(
    unet: VideoUNet, dtype: torch.dtype
) -> None:
    plain = run(unet)
    stored = copy.deepcopy(unet).to(dtype)
    before = weights_in(stored)
    use_fp8(stored, linears=False)
    stages = [module for module in stored.modules() if isinstance(module, Stage)]
    assert not any(p.dtype == FP8 for stage in stages[:1] for p in stage.parameters())
    assert not any(
        p.dtype == FP8 for part in (stored.time_embed, stored.label_emb, stored.out) for p in part.parameters()
    )
    for stage in stages[1:]:
        for module in stage.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
                assert module.parametrizations.weight.original0.dtype == FP8
                assert module.weight.dtype == dtype
    assert weights_in(stored) < before / dtype.itemsize * 1.4  # scales, and what keeps its precision, weigh more here
    assert 1e-3 < relative_error(run(stored), plain) < 0.15


def test_small_weights_keep_their_precision_in_fp16() -> None:
    weight = torch.randn(8, 16) * 1e-4
    storage = StoredInFp8(torch.float16)
    again = storage(*storage.right_inverse(weight.half()))
    assert relative_error(again.float(), weight) < HALF_A_STEP


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_multiplies_what_tokens_and_weights_become_in_8_bits(bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(32, 48, bias=bias)
    tokens = torch.randn(2, 5, 32) * torch.logspace(-2, 2, 5)[:, None]
    with torch.inference_mode():
        result = Fp8Linear(linear)(tokens)
        exact = linear(tokens)
    rows, row_scale = to_fp8(tokens.flatten(0, 1))
    weight, scale = to_fp8(linear.weight.detach())
    product = (rows.double() * row_scale) @ (weight.double() * scale).t()
    expected = product.unflatten(0, (2, 5)) + (linear.bias.detach() if bias else 0)
    assert result.dtype == tokens.dtype
    assert result.shape == exact.shape
    assert relative_error(result.double(), expected) < 2**-8  # bfloat16's rounding
    assert 1e-2 < relative_error(result, exact) < 2 * HALF_A_STEP


def test_linears_over_tokens_compute_in_8_bits_and_the_rest_is_stored(unet: VideoUNet) -> None:
    plain, computing, stored = run(unet), copy.deepcopy(unet), copy.deepcopy(unet)
    use_fp8(computing, linears=True)
    use_fp8(stored, linears=False)
    names = [name for name, module in computing.named_modules() if isinstance(module, Fp8Linear)]
    assert names
    assert all(".attn1." in name or ".ff" in name for name in names)
    assert any(name.endswith("to_out.0") for name in names)
    assert abs(weights_in(computing) / weights_in(stored) - 1) < 0.01
    assert not torch.equal(run(computing), run(stored))
    assert 1e-3 < relative_error(run(computing), plain) < 0.2


@pytest.mark.parametrize(
    ("mode", "device", "capability", "told"),
    [
        ("weights", "mps", (0, 0), "omit it"),
        ("linears", "cuda", (8, 6), "give --fp8 weights"),
        ("fp4", "cpu", (0, 0), "give one of off, weights, linears"),
    ],
)
def test_what_a_device_cannot_do_is_told(
    monkeypatch: pytest.MonkeyPatch, mode: str, device: str, capability: tuple[int, int], told: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with pytest.raises(UserError, match=told):
        check_fp8(mode, torch.device(device))


@pytest.mark.parametrize(
    ("mode", "device", "capability"), [("weights", "cuda", (7, 5)), ("linears", "cuda", (8, 9)), ("linears", "cpu", ())]
)
def test_what_a_device_can_do(
    monkeypatch: pytest.MonkeyPatch, mode: str, device: str, capability: tuple[int, ...]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    check_fp8(mode, torch.device(device))
