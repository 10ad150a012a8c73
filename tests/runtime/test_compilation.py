"""Compiled blocks against blocks as they are."""

import pytest
import torch

from sgm.runtime.compilation import COMPILED, compile_blocks
from sgm.runtime.fp8 import Fp8Linear, use_fp8
from tests.small_models import deterministic_model, miniature_config, relative_error


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own compiler gives some
@pytest.mark.parametrize("fp8", [False, True])
def test_compiled_blocks_give_the_same(fp8: bool) -> None:
    model = deterministic_model(miniature_config("svd"))
    if fp8:
        use_fp8(model.unet, linears=False)
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(3, model.config.vector_width, generator=generator)
    given = (torch.randn(3, 8, 8, 8, generator=generator), torch.zeros(3), torch.randn(1, 1, 32), vector, 3)
    with torch.inference_mode():
        plain = model.unet(*given)
        compile_blocks(model.unet)
        compiled = model.unet(*given)
    assert relative_error(compiled, plain) < 1e-5
    assert not torch.equal(compiled, plain)  # rounding tells that other code ran
    blocks = [module for module in model.unet.modules() if isinstance(module, COMPILED)]
    assert all(block._compiled_call_impl is not None for block in blocks)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_products_of_8_bits_are_the_same() -> None:
    """Of one layer: through a network a difference of rounding grows to a step of FP8, and that to others."""
    layer = Fp8Linear(torch.nn.Linear(32, 48)).requires_grad_(False)
    tokens = torch.randn(2, 5, 32)
    assert relative_error(torch.compile(layer)(tokens), layer(tokens)) < 1e-5
