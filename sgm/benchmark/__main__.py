"""`python -m sgm.benchmark VERSION`: how long a clip takes, stage by stage, and how much memory; beside diffusers."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..metrics.tables import check_can_write
from ..parameters.command_line import Command, run
from .request import BenchmarkRequest

COMMAND = Command[BenchmarkRequest](
    usage="python -m sgm.benchmark VERSION",
    purpose="Measures how long a clip takes, stage by stage, and how much memory: prints tables, writes JSON and a"
    " chart.",
    kinds=(BenchmarkRequest,),
    leading=("version",),
    example="--preset exact,fast",
)


def benchmark(request: BenchmarkRequest) -> None:
    """Measure, and print what was found."""
    check_can_write(request.output)

    from .run import run_benchmark  # only now: torch takes seconds to import

    sys.stdout.write(run_benchmark(request))


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words of the command line ask for; returns the exit code (see `command_line.run`)."""
    return run(COMMAND, benchmark, words)


if __name__ == "__main__":
    sys.exit(main())
