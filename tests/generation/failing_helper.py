"""A helper for `test_several_devices.py` whose device has too little memory for mode `high`."""

import sys
from typing import Any

import torch
from torch import Tensor

from sgm.generation import helper
from sgm.models.layers import FeedForward

forward = FeedForward.forward


def limited(self: FeedForward, tokens: Tensor) -> Any:
    if self.tokens_at_once is None:
        raise torch.OutOfMemoryError("CUDA out of memory (by a test)")
    return forward(self, tokens)


if __name__ == "__main__":
    FeedForward.forward = limited  # type: ignore[method-assign]
    helper.main(sys.argv[1:])
