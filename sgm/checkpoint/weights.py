"""What a checkpoint holds, however it is stored: tensors by key, with shapes and types; how bad files are reported.

A file was made by others: whatever is wrong with it is reported in one line, before any tensor is given out.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import UserError

Shape = tuple[int, ...]

MAX_DIMENSIONS = 8  # of a tensor; weights have up to 5
_MAX_SHOWN = 200  # characters; the longest key of a model has 92
# The number formats that weights may have, as .safetensors files call them.
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
NAMES_OF_DTYPES = {dtype: name for name, dtype in DTYPES.items()}


class Weights(Protocol):
    """What a checkpoint holds: the shape and the type, such as F16, of each tensor, and the tensors themselves."""

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """By key."""

    @property
    def dtypes(self) -> Mapping[str, str]:
        """By key."""

    def tensors(self, keys: Iterable[str]) -> Iterator[Tensor]:
        """The tensors of the keys, one at a time."""


@contextmanager
def reporting_bad_files(path: Path) -> Iterator[None]:
    """Turns what reading a broken file raises into a UserError of one line."""
    try:
        yield
    except (SafetensorError, pickle.UnpicklingError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} is not a readable checkpoint ({printable(reason)}); fetch the file again, or give another with"
            " --checkpoint"
        ) from error


def printable(text: str) -> str:
    """What a file says of itself, fit for a terminal: no control characters, one line, cut at 200 characters."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:_MAX_SHOWN])
    return shown + "..." * (len(text) > _MAX_SHOWN)
