"""Opens a checkpoint, whatever layout it has: a .safetensors file, a .ckpt file, or diffusers' folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UserError
from .files import COMPONENTS, component_files, is_safetensors, weight_files
from .torch_archive import TorchArchive
from .weights import MAX_DIMENSIONS, Shape, Weights, printable, reporting_bad_files

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


def open_weights(path: Path) -> Weights:
    """The weights in a file or in diffusers' folder. Raises UserError for what can't be read as such."""
    weight_files(path)
    if path.is_dir():
        return Folder(path)
    return Safetensors(path) if is_safetensors(path) else TorchArchive(path)


def _check_header(path: Path) -> None:
    """Refuses a header, whose length is in the first 8 bytes, that would take long to read."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if _MAX_HEADER_BYTES < length < path.stat().st_size:
        raise SafetensorError(f"its header is longer than {_MAX_HEADER_BYTES >> 20} MiB")
