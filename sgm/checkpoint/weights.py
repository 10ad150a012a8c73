"""What a checkpoint holds, however it is stored: tensors by key, with shapes and types; how bad files are reported.

A file was made by others: whatever is wrong with it is reported in one line, before any tensor is given out.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UserError
from .files import COMPONENTS, component_files

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


# A mapped file's pages count as memory while it is open, so it is opened anew after this many bytes.
_BYTES_BETWEEN_REOPENINGS = 256 * 2**20
_MAX_HEADER_BYTES = 10 * 2**20  # of a .safetensors file; those of the released models have 0.3 MiB


class Safetensors:
    """One .safetensors file."""

    def __init__(self, path: Path):
        self.path = path
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, str] = {}
        with reporting_bad_files(path):
            _check_header(path)
        with reporting_bad_files(path), safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                header = file.get_slice(key)
                self.shapes[key] = tuple(header.get_shape())
                self.dtypes[key] = header.get_dtype()
                if len(self.shapes[key]) > MAX_DIMENSIONS:
                    raise SafetensorError(f"a tensor of {len(self.shapes[key])} dimensions")

    def tensors(self, keys: Iterable[str]) -> Iterator[Tensor]:
        """The tensors of the keys, one at a time."""
        remaining = list(keys)[::-1]
        with reporting_bad_files(self.path):
            while remaining:
                budget = _BYTES_BETWEEN_REOPENINGS
                with safe_open(self.path, framework="pt") as file:
                    while remaining and budget > 0:
                        tensor = file.get_tensor(remaining.pop())
                        budget -= tensor.nbytes
                        yield tensor


class Folder:
    """Several files as one: a key is that of diffusers' component and the one in its file, `unet/conv_in.weight`."""

    def __init__(self, path: Path):
        self.files: dict[str, tuple[Safetensors, str]] = {}
        for component in COMPONENTS:
            for file in component_files(path, component):
                weights = Safetensors(file)
                for key in weights.shapes:
                    if f"{component}/{key}" in self.files:
                        raise UserError(
                            f"{path} is not a readable checkpoint: two files of {component}/ hold {printable(key)}"
                        )
                    self.files[f"{component}/{key}"] = weights, key
        self.shapes = {key: weights.shapes[inner] for key, (weights, inner) in self.files.items()}
        self.dtypes = {key: weights.dtypes[inner] for key, (weights, inner) in self.files.items()}

    def tensors(self, keys: Iterable[str]) -> Iterator[Tensor]:
        """The tensors of the keys, one at a time."""
        for weights, group in groupby(keys, key=lambda key: self.files[key][0]):
            yield from weights.tensors([self.files[key][1] for key in group])


def _check_header(path: Path) -> None:
    """Refuses a header, whose length is in the first 8 bytes, that would take long to read."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if _MAX_HEADER_BYTES < length < path.stat().st_size:
        raise SafetensorError(f"its header is longer than {_MAX_HEADER_BYTES >> 20} MiB")
