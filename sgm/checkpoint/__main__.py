"""`python -m sgm.checkpoint inspect|convert`: says what a checkpoint is; writes it anew in the other layout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..config import RELEASES
from ..errors import UserError
from ..parameters.flags import help_of, read_request
from ..parameters.parameter import NAME, PATH, parameter, read_fields
from ..progress import Progress

NOT_ONE_OF_OURS, BAD_REQUEST, FAILURE, INTERRUPTED = 1, 2, 1, 130
PURPOSE = "Says what a checkpoint is (inspect), or writes it anew in the other layout (convert)."
ADVICE = "write inspect PATH, or convert FROM TO"
MISSING = Path()


@dataclass(frozen=True)
class InspectRequest:
    """What `inspect` asks for. Raises UserError for a value that isn't allowed."""

    path: Path = parameter(MISSING, PATH, "A file with weights, or a folder of diffusers' layout.", default_text="none")

    def __post_init__(self) -> None:
        read_fields(self)
        if self.path == MISSING:
            raise UserError(f"which file or folder? {ADVICE}")


@dataclass(frozen=True)
class ConvertRequest:
    """What `convert` asks for. Raises UserError for a value that isn't allowed."""

    source: Path = parameter(
        MISSING, PATH, "A file with weights, or a folder of diffusers' layout.", default_text="none"
    )
    target: Path = parameter(
        MISSING,
        PATH,
        "What to write, which must not be there yet: a name that ends in .safetensors asks for one file, any other for"
        " a folder of diffusers' layout.",
        default_text="none",
    )
    precision: str | None = parameter(
        None, NAME, "The kind of number to write.", choices=("fp16", "fp32"), default_text="as it is"
    )
    version: str | None = parameter(
        None,
        NAME,
        "Which version the weights are of, where structure and names don't tell.",
        choices=tuple(RELEASES),
        default_text="what the weights' structure says",
    )
    config: Path | None = parameter(
        None,
        PATH,
        "The YAML file that describes the model, for weights of your own; --version then names it.",
        default_text="configs/VERSION.yaml of the project",
    )

    def __post_init__(self) -> None:
        read_fields(self)
        if MISSING in (self.source, self.target):
            raise UserError(f"from what to what? {ADVICE}")
        if self.config is not None and self.version is None:
            raise UserError("config is given without version: say which version it is a variant of")


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words of the command line ask for; returns the exit code.

    0: done; 1: `inspect` found no version that fits, or the disk failed; 2: the user's mistake, told in a line on
    stderr; 130: Ctrl-C.
    """
    words = list(sys.argv[1:] if words is None else words)
    if not words or "-h" in words or "--help" in words:
        sys.stdout.write(help_text())
        return 0
    actions = {"inspect": _inspect, "convert": _convert}
    try:
        if words[0] not in actions:
            raise UserError(f"{words[0]!r} can't be done: {ADVICE}")
        return actions[words[0]](words[1:])
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return BAD_REQUEST
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        return FAILURE
    except KeyboardInterrupt:
        sys.stderr.write("stopped by Ctrl-C; nothing was written\n")
        return INTERRUPTED


def help_text() -> str:
    """Both commands with every parameter."""
    return (
        f"{PURPOSE}\n\n"
        + help_of(
            InspectRequest,
            "inspect: which version, layout and precision it is of, what is missing or extra.",
            "python -m sgm.checkpoint inspect PATH",
        )
        + "\n"
        + help_of(
            ConvertRequest,
            "convert: one file to a folder of diffusers' layout, or the other way round.",
            "python -m sgm.checkpoint convert SOURCE TARGET [--NAME VALUE] ...",
        )
    )


def _inspect(words: Sequence[str]) -> int:
    request = read_request(InspectRequest, words, "path", advice=ADVICE)

    from .identifying import describe  # only now: torch takes seconds to import

    text, fits = describe(request.path)
    sys.stdout.write(text)
    return 0 if fits else NOT_ONE_OF_OURS


def _convert(words: Sequence[str]) -> int:
    request = read_request(ConvertRequest, words, "source", "target", advice=ADVICE)

    from .converting import convert  # only now: torch takes seconds to import
    from .diffusers_configs import has_pipeline

    config = convert(
        request.source,
        request.target,
        version=request.version,
        config=request.config,
        precision=request.precision,
        track=partial(Progress().track, unit="parameter"),
    )
    sys.stdout.write(f"{request.target}: {config.version}\n")
    if request.target.is_dir() and not has_pipeline(config):
        sys.stdout.write("note: diffusers itself can't run this model, having no pipeline for its structure\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
