"""From words to a request and from errors to exit codes: everything about the command line but the work itself.

The request checks names and values; the work starts after it, so that no mistake in the words costs more than a moment.
"""

from __future__ import annotations

import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence

from .. import __version__
from ..config import RELEASES, load_config
from ..errors import UserError, in_one_line, is_out_of_memory
from .flags import read_flags
from .parameter import PATH, Parameter, parameters_of
from .request import Request, make_request
from .sampling import SamplingParameters, ignored_parameters

HELP_WIDTH = 100
NAME_WIDTH = 30
VERSION_ROW = "  {:20}  {:>6}  {:>5}  {:>8}  {}"
ADVICE = (
    "write --NAME VALUE, as in --input_path photo.jpg, lists without spaces or in quotes, as in"
    " --elevations_deg [10,20,10]"
)
BAD_REQUEST, BUG_OR_FAILURE, INTERRUPTED = 2, 1, 130

PARAMETERS = parameters_of(Request) | parameters_of(SamplingParameters)


def run(work: Callable[[Request], int], words: Sequence[str] | None = None) -> int:
    """Do the work that the words of the command line ask for; returns the exit code.

    0: done; 1: `work` says that something failed, or an unforeseen error; 2: the user's mistake; 130: Ctrl-C. An error
    is told on stderr in a line, with `--verbose` after its traceback. `-h` and `--help` print the help instead,
    `-V` and a `--version` without a value the program's version.
    """
    words = sys.argv[1:] if words is None else words
    if "-h" in words or "--help" in words:
        sys.stdout.write(help_text())
        return 0
    if "-V" in words or list(words[-1:]) == ["--version"]:  # before a value it is the model's version
        sys.stdout.write(f"sgm {__version__}\n")
        return 0
    verbose = False
    try:
        request = parse(words)
        verbose = request.verbose
        if verbose:
            sys.stderr.write(_values(request))
        return work(request)
    except UserError as error:
        return _tell(f"error: {error}", BAD_REQUEST, verbose)
    except KeyboardInterrupt:
        return _tell("stopped by Ctrl-C; finished clips are kept", INTERRUPTED, verbose)
    except Exception as error:
        foreseen = verbose or is_out_of_memory(error) or isinstance(error, OSError)
        hint = "" if foreseen else " (--verbose shows where)"
        return _tell(f"error: {in_one_line(error)}{hint}", BUG_OR_FAILURE, verbose)


def parse(words: Sequence[str]) -> Request:
    """The request that the words ask for; warns on stderr of parameters that its version ignores. Raises UserError."""
    given = read_flags(words, advice=ADVICE)
    request = make_request(given)
    ignored = ignored_parameters(request.model)
    for name in given:
        if name in ignored:
            sys.stderr.write(f"warning: {request.version} ignores {name}: {ignored[name]}\n")
    return request


def help_text() -> str:
    """Every parameter with its explanation, range and default, in plain text at most 100 columns wide."""
    sections = [
        "Makes a video from an image: a photo comes to life (svd), or a camera circles an object (sv3d).",
        "usage: python sample.py [--NAME VALUE] ...",
        "What to make, from what, with what:",
        *(_explain(name, declared, Request) for name, declared in parameters_of(Request).items()),
        "How the clip is made:",
        *(_explain(name, declared, SamplingParameters) for name, declared in parameters_of(SamplingParameters).items()),
        "Versions, and where on huggingface.co their weights are:",
        "\n".join([VERSION_ROW.format("", "frames", "steps", "size", "weights"), *map(_describe, RELEASES)]),
        "Examples:",
        "  python sample.py --input_path photo.jpg --version svd_tiny\n"
        "  python sample.py --input_path photo.jpg --motion_bucket_id 180 --seed 7\n"
        "  python sample.py --input_path object.png --version sv3d_p --elevations_deg [10,15,20,15,10,5,0]",
    ]
    return "\n\n".join(sections) + "\n"


def _explain(name: str, declared: Parameter, owner: type) -> str:
    """One parameter's lines: its name and kind, and beside them its explanation, what is allowed, and its default."""
    default = declared.default_text or str(getattr(owner, name))
    allowed = "" if declared.kind is PATH else f" Allowed: {declared.allowed}."
    sentences = f"{declared.explanation}{allowed} Default: {default}."
    beside = textwrap.indent(textwrap.fill(sentences, HELP_WIDTH - NAME_WIDTH), " " * NAME_WIDTH)
    flag = f"  --{name} {declared.kind.label}"
    return flag.ljust(NAME_WIDTH) + beside[NAME_WIDTH:]


def _describe(version: str) -> str:
    config, release = load_config(version), RELEASES[version]
    size, weights = f"{config.width}x{config.height}", release.repository or "in the box"
    return VERSION_ROW.format(version, config.num_frames, config.num_steps, size, weights)


def _values(request: Request) -> str:
    everything = vars(request) | vars(request.sampling) | {"fps": request.fps_of(request.sampling)}
    return "".join(f"{name}: {everything[name]}\n" for name in PARAMETERS)


def _tell(line: str, exit_code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    sys.stderr.write(line + "\n")
    return exit_code
