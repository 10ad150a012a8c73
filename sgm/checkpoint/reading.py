"""Reads the tensors of checkpoint files one by one, and runs no code of theirs.

A file is one of others' making: whatever is wrong with it is told in one line, before any tensor is given out.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UserError
from .files import COMPONENTS, component_files, weight_files

Shape = tuple[int, ...]

# A mapped file's pages count as memory while it is open, so it is opened anew after this many bytes.
_BYTES_BETWEEN_REOPENINGS = 256 * 2**20
# The largest instructions of how to build the tensors of a .ckpt; those of the released models have under 1 MiB.
_MAX_PICKLE_BYTES = 64 * 2**20
_MAX_SHOWN = 200  # characters; the longest key of a model has 92
# The types of number that weights may have, as .safetensors files call them.
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


class Safetensors:
    """One .safetensors file."""

    def __init__(self, path: Path):
        self.path = path
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, str] = {}
        with telling_of_bad_files(path), safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                header = file.get_slice(key)
                self.shapes[key] = tuple(header.get_shape())
                self.dtypes[key] = header.get_dtype()

    def tensors(self, keys: Iterable[str]) -> Iterator[Tensor]:
        """The tensors of the keys, one at a time."""
        remaining = list(keys)[::-1]
        with telling_of_bad_files(self.path):
            while remaining:
                budget = _BYTES_BETWEEN_REOPENINGS
                with safe_open(self.path, framework="pt") as file:
                    while remaining and budget > 0:
                        tensor = file.get_tensor(remaining.pop())
                        budget -= tensor.nbytes
                        yield tensor


class Pickle:
    """One .ckpt file of plain tensors, as torch.save writes it since version 1.6."""

    def __init__(self, path: Path):
        with telling_of_bad_files(path):
            _check_archive(path)
            for key, tensor in (state := _plain_state(path)).items():
                if not (isinstance(key, str) and isinstance(tensor, Tensor) and _is_plain(tensor)):
                    raise pickle.UnpicklingError(f"{str(key)[:80]!r} is no plain tensor")
        self.state: dict[str, Tensor] = state
        self.shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
        self.dtypes = {key: NAMES_OF_DTYPES.get(tensor.dtype, str(tensor.dtype)) for key, tensor in state.items()}

    def tensors(self, keys: Iterable[str]) -> Iterator[Tensor]:
        """The tensors of the keys, one at a time."""
        return (self.state[key] for key in keys)


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
    return Safetensors(path) if path.suffix == ".safetensors" else Pickle(path)


@contextmanager
def telling_of_bad_files(path: Path) -> Iterator[None]:
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
    """What a file says of itself, for people: nothing that steers a terminal or ends a line, and not endless."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:_MAX_SHOWN])
    return shown + "..." * (len(text) > _MAX_SHOWN)


def _check_archive(path: Path) -> None:
    """Refuses an archive that isn't as torch.save writes it, which compresses nothing and holds each member once."""
    if not zipfile.is_zipfile(path):
        raise pickle.UnpicklingError("it is cut short, or not what torch.save has written since version 1.6")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except OSError:
        raise
    except Exception as error:
        raise _broken(error) from error
    if len({member.filename for member in members}) < len(members):
        raise pickle.UnpicklingError("it holds two members of one name")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise pickle.UnpicklingError("it unpacks to more than its size, where torch.save compresses nothing")
    if any(member.filename.endswith(".pkl") and member.file_size > _MAX_PICKLE_BYTES for member in members):
        raise pickle.UnpicklingError(f"its instructions are longer than {_MAX_PICKLE_BYTES >> 20} MiB")


def _plain_state(path: Path) -> dict[str, Tensor]:
    """What the archive holds by key; where its pickle asks for anything but tensors, it is refused."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:  # its own words explain how to run the file's code
        raise pickle.UnpicklingError("it holds more than plain tensors") from error
    except Exception as error:
        raise _broken(error) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise pickle.UnpicklingError("it holds no tensors by name")
    return state


def _broken(error: Exception) -> pickle.UnpicklingError:
    """What to tell of a file that is made up so that it makes a library fail, in any way there is."""
    reason = (str(error).splitlines() or [""])[0]
    return pickle.UnpicklingError(f"it is broken: {type(error).__name__} {reason[:200]}")


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.device.type == "cpu"
