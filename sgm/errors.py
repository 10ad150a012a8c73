"""Errors that a user can fix, resources that a machine lacks, and any error as one line."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_MAKE_ROOM = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, or write to another disk")


class UserError(ValueError):
    """A user's mistake: one line saying what is wrong, what is allowed and how to fix it.

    The command line prints the message and exits with code 2. Bugs in the program are never of this type.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out.

    torch has an OutOfMemoryError only for CUDA; on mps and the CPU it raises a RuntimeError that says so. cuBLAS and
    cuDNN have their own wording, and cuDNN also fails to find an engine if none has enough memory to work in. oneDNN,
    on the CPU, has chosen a primitive and then can't create it.
    """
    words = "out of memory|can(no|')t allocate memory|ALLOC(ATION)?_FAILED|unable to find an engine"
    words += "|could not create a primitive$"
    return isinstance(error, MemoryError) or bool(re.search(words, str(error), flags=re.IGNORECASE))


def is_out_of_room(error: BaseException) -> bool:
    """Whether an error says that nothing more can be written: the disk or the quota is full, or it is read-only."""
    return bool(error_numbers(error) & NO_ROOM)


def error_numbers(error: BaseException) -> set[int | None]:
    """The errno of an OSError, or of the one that a UserError was raised from."""
    return {reason.errno for reason in (error, error.__cause__) if isinstance(reason, OSError)}


def in_one_line(error: Exception) -> str:
    """An error's message for a user; an unexpected error's with its type."""
    if isinstance(error, UserError):
        return str(error)
    if is_out_of_memory(error):
        return (
            "out of memory: try --memory lowest, --decoding_t 1, --precision fp16, fewer --num_frames, or a smaller"
            " --width and --height"
        )
    if isinstance(error, OSError):
        return f"{error}: {_MAKE_ROOM[error.errno]}" if error.errno in _MAKE_ROOM else str(error)
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the known word nearest to a misspelt one; empty where none is near."""
    nearest = difflib.get_close_matches(shortened(word).lower().replace("-", "_"), list(known), n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def unknown_parameter(name: str, known: Iterable[str], hints: Mapping[str, str] = MappingProxyType({})) -> UserError:
    """The error for an unknown parameter, with the one that was probably meant.

    hints: what to say about names that other programs use.
    """
    hint = f" ({hints[name]})" if name in hints else did_you_mean(name, known)
    return UserError(f"there is no parameter {shortened(name)!r}{hint}; --help lists them all")


def shortened(text: str, most: int = 200) -> str:
    """Outside text as an error shows it: if it is long, only its beginning."""
    return text if len(text) <= most else text[:most] + " ..."
