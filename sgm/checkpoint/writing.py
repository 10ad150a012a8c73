"""Writes a .safetensors file tensor by tensor, so that no more than one is in memory; the library's wants them all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from .weights import NAMES_OF_DTYPES, Shape


def write_safetensors(path: Path, header: Mapping[str, tuple[torch.dtype, Shape]], tensors: Iterable[Tensor]) -> None:
    """Write the tensors, which come in the header's order and have the types and shapes that it gives by key.

    The format (github.com/huggingface/safetensors): the header's length in 8 bytes, the header in JSON, filled up to a
    multiple of 8, the tensors' bytes one after the other. Wide types must come first, so that all are aligned.
    """
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}  # transformers reads no file without it
    end = 0
    for key, (dtype, shape) in header.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        described[key] = {"dtype": NAMES_OF_DTYPES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (key, expected), tensor in zip(header.items(), tensors, strict=True):
            assert (tensor.dtype, tuple(tensor.shape)) == expected, key
            file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
