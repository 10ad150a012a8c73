"""The command line, the same for every command: from words to a request, help, errors, exit codes.

On its own, Fire guesses types, and calls a function before it complains about a flag that the function doesn't have.
Here it only collects the flags' texts; building a request from them checks names and values before any work starts.
"""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar, cast

from .. import __version__
from ..errors import UserError, in_one_line, is_out_of_memory, unknown_parameter
from ..progress import open_standard_streams, print_safely
from ..storage.locks import take_quick_ctrl_c_as_one
from .parameter import PATH, TRUTH, Parameter, parameters_of

Request = TypeVar("Request")

HELP_WIDTH = 100
NAME_WIDTH = 30
DONE, FAILED, BAD_REQUEST, INTERRUPTED = 0, 1, 2, 130
VERBOSE = Parameter(TRUTH, "Show the full traceback of an error.", default_text="no")


@dataclass(frozen=True)
class Command(Generic[Request]):
    """One command.

    usage: how it is called, such as "python -m sgm.benchmark VERSION". purpose: a sentence or two.
    kinds: the dataclasses that declare its parameters (see `parameter`). make: builds a request from the given texts by
    name; by default the only kind's constructor. leading: parameters whose values may come first, without their names.
    groups: of parameters in the help, by title; by default all in one. example: a flag as it should be written.
    more_help: what follows the parameters in the help. kept: what Ctrl-C leaves behind.
    """

    usage: str
    purpose: str
    kinds: tuple[type, ...]
    make: Callable[[Mapping[str, str]], Request] | None = None
    leading: tuple[str, ...] = ()
    groups: Mapping[str, Sequence[str]] | None = None
    example: str = ""
    more_help: Callable[[], str] = str
    kept: str = ""

    @property
    def parameters(self) -> dict[str, tuple[Parameter, Any]]:
        """Every declared parameter with its default, by name."""
        return {name: (it, getattr(kind, name)) for kind in self.kinds for name, it in parameters_of(kind).items()}

    def read(self, words: Sequence[str]) -> Request:
        """The request that the words describe. Raises UserError."""
        return self.request(read_flags(words, self))

    def request(self, given: Mapping[str, str]) -> Request:
        """The request built from the given texts. Raises UserError."""
        if self.make is not None:
            return self.make(given)
        (kind,) = self.kinds
        for name in given:
            if name not in self.parameters:
                raise unknown_parameter(name, self.parameters)
        return cast(Request, kind(**given))

    def help_text(self) -> str:
        """Every parameter with its explanation, range and default, in plain text at most 100 columns wide."""
        explained = {
            name: _explain(name, declared, default)
            for name, (declared, default) in ({"verbose": (VERBOSE, None)} | self.parameters).items()
        }
        groups = self.groups or {"Parameters": list(explained)}
        sections = [
            self.purpose,
            f"usage: {self.usage} [--NAME VALUE] ...",
            *(f"{title}:\n\n" + "\n\n".join(explained[name] for name in names) for title, names in groups.items()),
            *filter(None, [self.more_help()]),
        ]
        return "\n\n".join(sections) + "\n"


def run(command: Command[Request], work: Callable[[Request], int | None], words: Sequence[str] | None = None) -> int:
    """Run `work` on the request that the words, by default this process's own, describe. Returns the exit code.

    0: done; 1: `work` returned it, or something failed; 2: the user's mistake; 130: Ctrl-C. An error is one line on
    stderr, with `--verbose` after its traceback. `-h` and `--help` print the help, `-V` the program's version.
    """
    open_standard_streams()
    is_whole_process = words is None
    words = sys.argv[1:] if words is None else words
    if _asked_to_print(words, command.help_text):
        return DONE
    # OpenMP's threads busy-wait by default, which makes everything ten times slower on cores that others use, too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if is_whole_process:
        take_quick_ctrl_c_as_one()
    verbose = False
    try:
        given = read_flags(words, command)
        verbose = bool(VERBOSE.read("verbose", given.get("verbose", False)))
        if "verbose" not in command.parameters:
            given.pop("verbose", None)
        return work(command.request(given)) or DONE
    except UserError as error:
        return _end(f"error: {error}", BAD_REQUEST, verbose)
    except KeyboardInterrupt:
        if is_whole_process:  # a second one would interrupt the cleanup of Python and its libraries
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return _end("stopped by Ctrl-C" + (f"; {command.kept}" if command.kept else ""), INTERRUPTED, verbose)
    except Exception as error:
        foreseen = verbose or is_out_of_memory(error) or isinstance(error, OSError)
        return _end(f"error: {in_one_line(error)}" + ("" if foreseen else " (--verbose shows where)"), FAILED, verbose)


def run_one_of(
    commands: Mapping[str, tuple[Command[Any], Callable[[Any], int | None]]], words: Sequence[str] | None = None
) -> int:
    """The same for a command with several actions; the first word names one."""
    words = sys.argv[1:] if words is None else words
    help_texts = (command.help_text() for command, _ in commands.values())
    if not words or words[0] not in commands:
        if _asked_to_print(words or ["--help"], lambda: "\n".join(help_texts)):
            return DONE
        usages = ", or ".join(command.usage for command, _ in commands.values())
        return _end(f"error: there is no action {words[0]!r}: write {usages}", BAD_REQUEST, verbose=False)
    command, work = commands[words[0]]
    return run(command, work, words[1:])


def read_flags(words: Sequence[str], command: Command[Any]) -> dict[str, str]:
    """The text of each flag by its name; words before any flag are the values of the leading parameters.

    Raises UserError for a flag given twice and for a word that belongs to no flag.
    """
    import fire
    from fire.decorators import SetParseFn

    first_flag = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    most = min(first_flag, len(command.leading))

    @SetParseFn(str)  # no guessing of types: "1e3" stays a folder's name where a folder is asked for
    def collect(*plain: str, **flags: str) -> dict[str, str]:
        if len(plain) > most:
            _refuse(plain[most], command)
        first = dict(zip(command.leading, plain, strict=False))
        for name in first.keys() & flags.keys():
            raise UserError(f"{name} is given twice, as {first[name]!r} and {flags[name]!r}: omit one of them")
        return first | flags

    names = [word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")]
    if repeated := next((name for name in dict.fromkeys(names) if name and names.count(name) > 1), None):
        raise UserError(f"{repeated} is given {names.count(repeated)} times: give it once")
    for word in words:
        if word in ("-", "--") or word.startswith("--="):  # Fire's own syntax; a flag without a name
            _refuse(word, command)
    return cast(dict[str, str], fire.Fire(collect, command=list(words), name="", serialize=_print_nothing))


def _asked_to_print(words: Sequence[str], help_text: Callable[[], str]) -> bool:
    """Print the help or the version if the words ask for it; returns whether they do."""
    if "-h" in words or "--help" in words:
        print_safely(help_text(), sys.stdout)
    elif list(words) in (["-V"], ["--version"]):
        print_safely(f"sgm {__version__}", sys.stdout)
    else:
        return False
    return True


def _explain(name: str, declared: Parameter, default: Any) -> str:
    """One parameter's lines: its name and kind, and beside them its explanation, what is allowed, and its default."""
    allowed = "" if declared.kind in (PATH, TRUTH) else f" Allowed: {declared.allowed}."
    sentences = f"{declared.explanation}{allowed} Default: {declared.default_text or default}."
    beside = textwrap.indent(textwrap.fill(sentences, HELP_WIDTH - NAME_WIDTH), " " * NAME_WIDTH)
    flag = f"  --{name} {declared.kind.label}"
    return f"{flag}\n{beside}" if len(flag) >= NAME_WIDTH else flag.ljust(NAME_WIDTH) + beside[NAME_WIDTH:]


def _end(line: str, exit_code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print_safely(line, sys.stderr)
    return exit_code


def _refuse(word: str, command: Command[Any]) -> NoReturn:
    example = f", as in {command.example}" if command.example else ""
    raise UserError(f"{word!r} belongs to no parameter: write --NAME VALUE{example}")


def _print_nothing(_: Any) -> None:
    """Keep Fire from printing the flags."""
