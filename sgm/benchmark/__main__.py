"""`python -m sgm.benchmark VERSION`: how long a clip takes, stage by stage, and how much memory; beside diffusers."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..metrics.tables import check_can_write
from ..parameters.flags import help_of, read_request, run_command
from .request import BenchmarkRequest


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words of the command line ask for; returns the exit code of `run_command`."""
    return run_command(words, help_text(), lambda words: run(parse(words)))


def parse(words: Sequence[str]) -> BenchmarkRequest:
    """The request that the words ask for. Raises UserError."""
    return read_request(BenchmarkRequest, words, "version", advice="write --NAME VALUE, as in --preset exact,fast")


def run(request: BenchmarkRequest) -> None:
    """Measure, and print what was found."""
    check_can_write(request.output)

    from .run import run_benchmark  # only now: torch takes seconds to import

    sys.stdout.write(run_benchmark(request))


def help_text() -> str:
    """Every parameter with its explanation and default."""
    return help_of(
        BenchmarkRequest,
        "Measures how long a clip takes, stage by stage, and how much memory: prints tables, writes JSON and a chart.",
        "python -m sgm.benchmark VERSION [--NAME VALUE] ...",
    )


if __name__ == "__main__":
    sys.exit(main())
