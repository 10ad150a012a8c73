"""`python -m sgm.checkpoint inspect|convert`: says what a checkpoint is; writes it in the other layout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..config import RELEASES
from ..errors import UserError
from ..parameters.command_line import Command, run_one_of
from ..parameters.parameter import NAME, PATH, parameter, read_fields
from ..progress import Progress

NOT_ONE_OF_OURS = 1
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
        "Which version the weights are of, where neither structure nor names show it.",
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


INSPECT = Command[InspectRequest](
    usage="python -m sgm.checkpoint inspect PATH",
    purpose="inspect: which version, layout and precision a checkpoint is of, what is missing or extra.",
    kinds=(InspectRequest,),
    leading=("path",),
)
CONVERT = Command[ConvertRequest](
    usage="python -m sgm.checkpoint convert SOURCE TARGET",
    purpose="convert: one file to a folder of diffusers' layout, or the other way round.",
    kinds=(ConvertRequest,),
    leading=("source", "target"),
    kept="nothing was written",
)


def run_inspect(request: InspectRequest) -> int:
    """Print what the checkpoint is. Returns 1 where no version fits."""
    from .identifying import describe  # only now: torch takes seconds to import

    text, fits = describe(request.path)
    sys.stdout.write(text)
    return 0 if fits else NOT_ONE_OF_OURS


def run_convert(request: ConvertRequest) -> None:
    """Write the checkpoint in the other layout."""
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
        sys.stdout.write("note: diffusers itself can't run this model: it has no pipeline for its structure\n")


COMMANDS: dict[str, tuple[Command[Any], Callable[[Any], int | None]]] = {
    "inspect": (INSPECT, run_inspect),
    "convert": (CONVERT, run_convert),
}


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words of the command line ask for; returns the exit code (see `command_line.run`)."""
    return run_one_of(COMMANDS, words)


if __name__ == "__main__":
    sys.exit(main())
