"""The words of a command line as flags and their texts: all that Fire is asked for, so it runs and guesses nothing.

Fire by itself guesses types, and calls a function before it complains of a flag that the function doesn't have. Here it
fills a dict; a request is built from it, which checks names and values, and only then does the work start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar, cast

import fire
from fire.decorators import SetParseFn

from ..errors import UserError, did_you_mean
from .parameter import parameters_of

Parameters = TypeVar("Parameters")


def read_flags(words: Sequence[str], *leading: str, advice: str) -> dict[str, str]:
    """The text of each flag by its name; words that come before any flag are those of the `leading` names.

    Raises UserError for a flag given twice and for a word that belongs to no flag; `advice` then says how flags are
    written.
    """

    @SetParseFn(str)  # no guessing of types: "1e3" stays a folder's name where a folder is asked for
    def collect(*plain: str, **flags: str) -> dict[str, str]:
        if len(plain) > len(leading):
            _refuse(plain[len(leading)], advice)
        return dict(zip(leading, plain, strict=False)) | flags

    names = [word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")]
    for name in names:
        if name and names.count(name) > 1:
            raise UserError(f"{name} is given {names.count(name)} times: leave all but one away")
    for word in words:
        if word in ("-", "--") or word.startswith("--="):  # Fire's own language; a flag without a name
            _refuse(word, advice)
    return cast(dict[str, str], fire.Fire(collect, command=list(words), name="", serialize=_print_nothing))


def read_request(kind: type[Parameters], words: Sequence[str], *leading: str, advice: str) -> Parameters:
    """The words as a dataclass of parameters (see `parameter.py`). Raises UserError as it and `read_flags` do."""
    flags = read_flags(words, *leading, advice=advice)
    known = parameters_of(kind)
    for name in flags:
        if name not in known:
            raise UserError(f"there is no parameter {name!r}{did_you_mean(name, known)}; --help lists them all")
    return kind(**cast(dict[str, Any], flags))


def run_command(words: Sequence[str] | None, help_text: str, work: Callable[[Sequence[str]], object]) -> int:
    """Print the help, or do the work that the words ask for; None stands for the words of this process.

    Returns 0; 1 where the disk failed and 2 for a user's mistake, told in a line on stderr; 130 after Ctrl-C.
    """
    words = sys.argv[1:] if words is None else words
    if "-h" in words or "--help" in words:
        sys.stdout.write(help_text)
        return 0
    try:
        work(words)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped by Ctrl-C\n")
        return 130
    return 0


def help_of(kind: type, purpose: str, usage: str) -> str:
    """What `--help` prints: every parameter of a dataclass with its explanation and default."""
    lines = [purpose, "", f"usage: {usage}", ""]
    for name, declared in parameters_of(kind).items():
        default = declared.default_text or str(getattr(kind, name))
        lines.append(f"  --{name} {declared.kind.label}\n      {declared.explanation} Default: {default}.")
    return "\n".join(lines) + "\n"


def _refuse(word: str, advice: str) -> NoReturn:
    raise UserError(f"{word!r} belongs to no parameter: {advice}")


def _print_nothing(_: Any) -> None:
    """What Fire prints of the flags."""
