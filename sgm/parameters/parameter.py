"""One parameter, declared as a dataclass field of a request: how its value is read, its range, its explanation.

The same declaration checks the value, words the error and prints the line of `--help`. A value is either a
Python value (23, 0.5, [10, 15]) or text from a command line ("23", "0.5", "[10,15]").
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean, shortened

CARDS = "cuda:0,cuda:1"
FLAG_WITHOUT_VALUE = "True"  # what Fire makes of a flag without a value


@dataclass(frozen=True)
class Kind:
    """A kind of value: `read` returns it or raises ValueError or TypeError; errors say `noun`, help says `label`.

    example: what errors say after the noun and the range.
    """

    read: Callable[[Any], Any]
    noun: str
    label: str
    example: str = ""


@dataclass(frozen=True)
class Parameter:
    """What a field declares besides its name and default. Ranges include both ends."""

    kind: Kind
    explanation: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False
    default_text: str = ""

    @property
    def allowed(self) -> str:
        """What is allowed, in words: `a whole number from 0 to 255`."""
        if self.choices:
            return f"{'some' if self.kind is NAMES else 'one'} of {', '.join(self.choices)}"
        span = "" if self.low is None or self.high is None else f" from {self.low} to {self.high}"
        return self.kind.noun + span + self.kind.example

    def read(self, name: str, value: object) -> Any:
        """The value converted and checked. Raises UserError naming the parameter, the value and what is allowed."""
        text = value if isinstance(value, str) else ""
        if self.optional and (value is None or text == "None"):
            return None
        if text == FLAG_WITHOUT_VALUE and self.kind is not TRUTH:
            raise UserError(f"{name} is given without a value: give {self.allowed}")
        try:
            converted = self.kind.read(value)
        except (ValueError, TypeError, LookupError, OverflowError):
            raise self._refusal(name, value) from None
        items = converted if isinstance(converted, tuple) else (converted,)
        for item in items:
            if self.choices and item not in self.choices:
                raise self._refusal(name, value, did_you_mean(item, self.choices))
        if self.low is not None and self.high is not None and not all(self.low <= x <= self.high for x in items):
            raise self._refusal(name, value)
        return converted

    def _refusal(self, name: str, value: object, hint: str = "") -> UserError:
        return UserError(f"{name} can't be {shortened(repr(value))}{hint}: give {self.allowed}")


def parameter(default: Any, kind: Kind, explanation: str, **more: Any) -> Any:
    """A dataclass field with its declaration; one whose default is None may also be given as None."""
    declared = Parameter(kind, explanation, optional=default is None, **more)
    return dataclasses.field(default=default, metadata={"parameter": declared})


def parameters_of(owner: type) -> dict[str, Parameter]:
    """The declared parameters of a dataclass, by name, in order."""
    return {f.name: f.metadata["parameter"] for f in dataclasses.fields(owner) if "parameter" in f.metadata}


def read_fields(instance: Any) -> None:
    """Convert and check every declared field of a frozen dataclass; call it from `__post_init__`."""
    for name, declared in parameters_of(type(instance)).items():
        object.__setattr__(instance, name, declared.read(name, getattr(instance, name)))


def kind_of_device(device: str | None) -> str | None:
    """`cuda` for cuda:1, for cuda:0,cuda:1 and so on."""
    return device.partition(",")[0].partition(":")[0] if device else None


def _read_whole(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return int(value) if isinstance(value, str) else operator.index(value)


def _read_seed(value: Any) -> int:
    """A whole number; `random` and -1 stand for one drawn now."""
    if value == "random" or str(value) == "-1":
        return secrets.randbelow(2**31)
    return _read_whole(value)


def _read_number(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(number := float(value)):
        raise ValueError
    return number


def _read_truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[str(value).lower()]


def _read_name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value


def _read_names(value: Any) -> tuple[str, ...]:
    return tuple(_read_name(name) for name in (value.split(",") if isinstance(value, str) else value))


def _read_path(value: Any) -> Path:
    if not str(value) or "\0" in str(value) or re.match(r"[a-z][a-z0-9+.-]+://", str(value), re.IGNORECASE):
        raise ValueError
    try:
        return Path(value).expanduser()
    except RuntimeError:  # ~name of an unknown user
        return Path(value)


def _read_numbers(value: Any) -> float | tuple[float, ...]:
    """A number as it is; a list, or its text with or without brackets, as a tuple."""
    if isinstance(value, str):
        text = value.strip()
        if text[:1] + text[-1:] in ("[]", "()"):
            value = text[1:-1].strip().removesuffix(",").split(",")
        elif "," in text:
            value = text.split(",")
    if isinstance(value, Iterable) and not isinstance(value, str):
        numbers = tuple(_read_number(number) for number in value)
        if not numbers:
            raise ValueError
        return numbers
    return _read_number(value)


def _read_interval(value: Any) -> tuple[float, ...]:
    interval = _read_numbers(value)
    if not isinstance(interval, tuple) or len(interval) != 2 or interval[0] > interval[1]:
        raise ValueError
    return interval


def _read_device(value: Any) -> str:
    name = str(value).lower()
    if not re.fullmatch(r"(cpu|mps)(:0)?|cuda(:\d{1,3})?", name):
        raise ValueError
    return name if name.startswith("cuda") else name.removesuffix(":0")


def _read_devices(value: Any) -> str:
    return ",".join(_read_device(name.strip()) for name in str(value).split(","))


WHOLE = Kind(_read_whole, "a whole number", "N")
SEED = Kind(_read_seed, "random, or a whole number", "N|random")
NUMBER = Kind(_read_number, "a number", "X")
TRUTH = Kind(_read_truth, "true or false", "true|false")
NAME = Kind(_read_name, "a name", "NAME")
NAMES = Kind(_read_names, "names separated by commas", "NAME,NAME")
PATH = Kind(_read_path, "the path of a local file or folder", "PATH")
INTERVAL = Kind(_read_interval, "two numbers", "LOW,HIGH", ", the lower one first, such as [0.1,100]")
ANGLES = Kind(_read_numbers, "a number of degrees", "DEGREES", ", or a list such as [10,20,10]")
DEVICE = Kind(_read_device, "cuda, cuda:1, mps or cpu", "DEVICE")
DEVICES = Kind(_read_devices, f"cuda, cuda:1, mps or cpu, or several as in {CARDS}", "DEVICE,...")
