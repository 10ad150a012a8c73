"""A .ckpt file of plain tensors, as torch.save writes it since version 1.6: a zip archive that compresses nothing.

`NAME/data.pkl` describes the tensors, `NAME/data/0` and so on hold their numbers, each read only when it is asked for.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import torch
from torch import Tensor

from .torch_pickle import MAX_BYTES, StoredTensor, read_pickle
from .weights import DTYPES, reporting_bad_files

_LOCAL_HEADER = 30  # bytes before a member's name in the archive (APPNOTE.TXT of PKWARE, 4.3.7)


@dataclass(frozen=True)
class _Member:
    """A piece of the archive's file."""

    start: int
    size: int


class TorchArchive:
    """One .ckpt file."""

    def __init__(self, path: Path):
        self.path = path
        with reporting_bad_files(path), path.open("rb") as file:
            self.members = _members(file)
            self.state = _state(self._content(file, "data.pkl", MAX_BYTES))
            for tensor in self.state.values():
                storage = tensor.storage
                if storage.count * storage.bytes_per_number > self._member(storage.member).size:
                    raise pickle.UnpicklingError(f"it is broken: {storage.member} is too short")
            if "byteorder" in self.members and self._content(file, "byteorder", 16) != b"little":
                raise pickle.UnpicklingError("its numbers have their bytes in the other order")
        self.shapes = {key: tensor.shape for key, tensor in self.state.items()}
        self.dtypes = {key: tensor.storage.dtype for key, tensor in self.state.items()}

    def tensors(self, keys: Iterable[str]) -> Iterator[Tensor]:
        """The tensors of the keys, one at a time."""
        with reporting_bad_files(self.path), self.path.open("rb") as file:
            for key in keys:
                yield self._read(file, self.state[key])

    def _read(self, file: BufferedReader, tensor: StoredTensor) -> Tensor:
        storage = tensor.storage
        numbers = torch.empty(tensor.extent, dtype=DTYPES[storage.dtype])
        file.seek(self._member(storage.member).start + tensor.offset * storage.bytes_per_number)
        if file.readinto(numbers.view(torch.uint8).numpy().data) != numbers.nbytes:
            raise pickle.UnpicklingError("it was cut short meanwhile")
        return numbers.as_strided(tensor.shape, tensor.strides)

    def _member(self, name: str) -> _Member:
        if name not in self.members:
            raise pickle.UnpicklingError(f"it is broken: it has no {name}")
        return self.members[name]

    def _content(self, file: BufferedReader, name: str, limit: int) -> bytes:
        member = self._member(name)
        if member.size > limit:
            raise pickle.UnpicklingError(f"its {name} is longer than {limit:,} bytes")
        file.seek(member.start)
        return file.read(member.size)


def _members(file: BufferedReader) -> dict[str, _Member]:
    """Where each member is, by its name without the folder that they are all in."""
    try:
        with zipfile.ZipFile(file) as archive:
            listed = archive.infolist()
    except OSError:
        raise
    except Exception as error:  # zipfile raises a dozen kinds of error for files that are made up to break it
        raise pickle.UnpicklingError("it is cut short, or not what torch.save has written since version 1.6") from error
    length = file.seek(0, 2)
    members: dict[str, _Member] = {}
    for entry in listed:
        name = entry.filename.partition("/")[2]
        if name in members:
            raise pickle.UnpicklingError("it holds two members of one name")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise pickle.UnpicklingError("it is compressed or encrypted, which torch.save never does")
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER)
        name_and_extra = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        members[name] = _Member(entry.header_offset + _LOCAL_HEADER + name_and_extra, entry.file_size)
        if not header.startswith(b"PK\x03\x04") or members[name].start + entry.file_size > length:
            raise pickle.UnpicklingError("it is broken: a member is not where its list of members says")
    return members


def _state(program: bytes) -> dict[str, StoredTensor]:
    """The tensors by key, of a state dict or of a checkpoint that has one."""
    content = read_pickle(program)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise pickle.UnpicklingError("it holds no tensors by name")
    for key, tensor in state.items():
        if not (isinstance(key, str) and isinstance(tensor, StoredTensor)):
            raise pickle.UnpicklingError(f"{str(key)[:80]!r} is no plain tensor")
    return state
