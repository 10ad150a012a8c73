"""Reads the pickle inside a file of torch.save, and runs nothing of it.

A pickle is a program for a small stack machine (Python's pickletools documents its instructions). Python's own machine
calls whatever function the program names, and torch's careful one still calls about sixty, among them some that take
any amount of memory. The one here calls none: it follows only the instructions that torch.save writes for dicts, lists,
numbers, strings and plain tensors, and describes a tensor instead of building it.
"""

from __future__ import annotations

import pickle
import pickletools
from dataclasses import dataclass
from typing import Any

from .weights import MAX_DIMENSIONS, Shape, printable

# The longest program: those of the released models have under 1 MiB and 100,000 instructions.
MAX_BYTES = 64 * 2**20
_MAX_INSTRUCTIONS = 1_000_000
_PROTOCOL = 2  # that of torch.save
_MAX_SIZE = 2**48  # of an axis, an offset, a step between numbers

# The storage classes of torch, with the names that .safetensors files give their number formats, and bytes a number.
_STORAGES = {
    "torch DoubleStorage": ("F64", 8),
    "torch FloatStorage": ("F32", 4),
    "torch HalfStorage": ("F16", 2),
    "torch BFloat16Storage": ("BF16", 2),
    "torch LongStorage": ("I64", 8),
    "torch IntStorage": ("I32", 4),
    "torch ShortStorage": ("I16", 2),
    "torch CharStorage": ("I8", 1),
    "torch ByteStorage": ("U8", 1),
    "torch BoolStorage": ("BOOL", 1),
}
_DICT, _TENSOR, _PARAMETER = (
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class _Name:
    """A class or function that the program names: "module name"."""

    text: str


@dataclass(frozen=True)
class Storage:
    """Numbers in a row, in a member of the archive."""

    member: str
    dtype: str
    bytes_per_number: int
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's numbers are: in its storage from `offset` on, as far apart as `strides` say, all in numbers."""

    storage: Storage
    offset: int
    shape: Shape
    strides: Shape

    @property
    def extent(self) -> int:
        """How many numbers of the storage lie between the tensor's first and its last, both included."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))


def read_pickle(program: bytes) -> Any:
    """What the program describes: dicts, lists, tuples, numbers and strings, with a StoredTensor for each tensor.

    Raises UnpicklingError for a program that asks for anything else, and for one that is broken.
    """
    try:
        return _follow(program)
    except (ValueError, TypeError, LookupError) as error:
        raise pickle.UnpicklingError(f"it is broken: {type(error).__name__} {error}") from error


def _follow(program: bytes) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def take(count: int) -> list[Any]:
        """The topmost values, the oldest first."""
        start = len(stack) - count
        if start < (marks[-1] if marks else 0):
            raise ValueError("it takes more from its stack than there is")
        taken = stack[start:]
        del stack[start:]
        return taken

    def take_to_mark() -> list[Any]:
        return take(len(stack) - marks[-1])

    instruction: pickletools.OpcodeInfo
    argument: Any
    for number, (instruction, argument, _) in enumerate(pickletools.genops(program)):
        if number > _MAX_INSTRUCTIONS:
            raise ValueError(f"more than {_MAX_INSTRUCTIONS:,} instructions")
        match instruction.name:
            case "PROTO":
                if argument != _PROTOCOL:
                    raise ValueError(f"protocol {argument}, where torch.save writes {_PROTOCOL}")
            case "STOP":
                return take(1)[0]
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case name if name in _LITERALS:
                stack.append(argument)
            case name if name in _TUPLES:
                stack.append(tuple(take(_TUPLES[name])))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                values = take_to_mark()
                marks.pop()
                stack.append(tuple(values))
            case "APPEND" | "APPENDS":
                values = take(1) if instruction.name == "APPEND" else take_to_mark()
                if instruction.name == "APPENDS":
                    marks.pop()
                _only(list, stack[-1]).extend(values)
            case "SETITEM" | "SETITEMS":
                values = take(2) if instruction.name == "SETITEM" else take_to_mark()
                if instruction.name == "SETITEMS":
                    marks.pop()
                target = _only(dict, stack[-1])
                for key, value in zip(values[::2], values[1::2], strict=True):
                    target[_only((str, int, float), key)] = value  # no tuples: hashing nested ones may never end
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_Name(argument))
            case "BINPERSID":
                stack.append(_storage(*_only(tuple, take(1)[0])))
            case "REDUCE":
                function, arguments = take(2)
                stack.append(_described(_only(_Name, function).text, _only(tuple, arguments)))
            case "BUILD":  # attributes of a dict, as state_dict's _metadata
                take(1)
                _only(dict, stack[-1])
            case _:
                raise _more_than_tensors(instruction.name)
    raise AssertionError("genops ends with STOP or raises")


def _only(kind: type | tuple[type, ...], value: Any) -> Any:
    if not isinstance(value, kind):
        raise _more_than_tensors(value.text if isinstance(value, _Name) else type(value).__name__)
    return value


def _more_than_tensors(what: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"it holds more than plain tensors: {printable(what)}")


def _described(function: str, arguments: tuple[Any, ...]) -> Any:
    """What a call of one of three functions would return; no other may be asked for."""
    if function == _DICT and not arguments:
        return {}
    if function == _PARAMETER:
        return _only(StoredTensor, arguments[0])
    if function == _TENSOR:
        return _tensor(*arguments)
    raise _more_than_tensors(function)


def _storage(kind: Any, storage_class: Any, key: Any, _device: Any, count: Any) -> Storage:
    name = _only(_Name, storage_class).text
    if kind != "storage" or name not in _STORAGES:
        raise _more_than_tensors(name)
    return Storage(f"data/{_only(str, key)}", *_STORAGES[name], count=_size(count))


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _requires_grad: Any, _hooks: Any, flags: Any = None
) -> StoredTensor:
    if flags:
        raise _more_than_tensors("conjugated or negated numbers")
    lengths, steps = (tuple(map(_size, _only(tuple, sizes))) for sizes in (shape, strides))
    if len(lengths) != len(steps) or len(lengths) > MAX_DIMENSIONS:
        raise ValueError(f"a tensor of {len(lengths)} dimensions and {len(steps)} strides")
    tensor = StoredTensor(_only(Storage, storage), _size(offset), lengths, steps)
    if tensor.offset + tensor.extent > tensor.storage.count:
        raise ValueError("a tensor that reaches beyond its storage")
    return tensor


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MAX_SIZE:
        raise ValueError("a size that is none")
    return value
