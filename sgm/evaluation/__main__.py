"""`python -m sgm.evaluation VERSION`: measures a bundled model on held-out data, or draws what it makes."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..checkpoint.finding import find_checkpoint
from ..errors import UserError
from ..flags import help_of, read_request
from ..outputs.findings import check_can_write, write_json
from ..parameter import NAME, PATH, WHOLE, parameter, read_fields
from ..presets import PRESETS
from ..progress import Progress
from ..request import DEVICE
from ..versions import RELEASES

BUNDLED = tuple(version for version, release in RELEASES.items() if release.repository is None)
PICTURE_SUFFIXES = (".webp", ".gif")
NUM_SHOWN = 6


@dataclass(frozen=True)
class EvaluationRequest:
    """What the command line asks for. Raises UserError for a value that isn't allowed."""

    version: str = parameter("", NAME, "Which model to measure.", choices=BUNDLED, default_text="none")
    checkpoint: Path | None = parameter(
        None, PATH, "The file with its weights.", default_text="checkpoints/VERSION.safetensors of the project"
    )
    output: Path = parameter(
        None,
        PATH,
        "The JSON file for the scores; an earlier one is replaced.",
        default_text="outputs/evaluation/VERSION.json",
    )
    picture: Path | None = parameter(
        None,
        PATH,
        "Draw what becomes of the first held-out inputs, as a moving .webp or .gif, and measure nothing.",
        default_text="none",
    )
    num_objects: int = parameter(32, WHOLE, "How many held-out objects sv3d_tiny orbits.", low=1, high=10**6)
    num_pictures: int = parameter(
        4, WHOLE, "How many held-out pictures svd_tiny sets in motion, 13 times each.", low=1, high=10**6
    )
    num_steps: int | None = parameter(
        None, WHOLE, "How many denoising steps to take.", low=1, high=1000, default_text="the version's own"
    )
    preset: str = parameter(
        "exact", NAME, "How far to trade fidelity for speed, as in sample.py.", choices=tuple(PRESETS)
    )
    device: str | None = parameter(None, DEVICE, "What to compute on.", default_text="cuda where there is one")
    precision: str | None = parameter(
        None,
        NAME,
        "The kind of number to compute with.",
        choices=("fp16", "bf16", "fp32"),
        default_text="what suits the device",
    )

    def __post_init__(self) -> None:
        read_fields(self)
        if self.output is None:
            object.__setattr__(self, "output", Path("outputs", "evaluation", f"{self.version}.json"))
        if self.picture is not None and self.picture.suffix.lower() not in PICTURE_SUFFIXES:
            raise UserError(f"picture can't be {str(self.picture)!r}: give a name that ends in .webp or .gif")


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words of the command line ask for. Returns 0, or 2 for a user's mistake, told in a line on stderr."""
    words = sys.argv[1:] if words is None else words
    if "-h" in words or "--help" in words:
        sys.stdout.write(help_text())
        return 0
    try:
        run(parse(words))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def parse(words: Sequence[str]) -> EvaluationRequest:
    """The request that the words ask for. Raises UserError."""
    return read_request(EvaluationRequest, words, "version", advice="write --NAME VALUE, as in --num_objects 32")


def help_text() -> str:
    """Every parameter with its explanation and default."""
    return help_of(
        EvaluationRequest,
        "Measures a bundled model on data that it never trained on: prints a table and writes JSON.",
        f"python -m sgm.evaluation {'|'.join(BUNDLED)} [--NAME VALUE] ...",
    )


def run(request: EvaluationRequest) -> None:
    """Measure or draw, with progress on stderr."""
    checkpoint = find_checkpoint(request.version, request.checkpoint)
    check_can_write(request.picture or request.output)

    from ..pipeline import load  # only now: torch takes seconds to import
    from . import generators, showcase
    from .orbits import evaluate_orbits
    from .scenes import evaluate_scenes

    pipeline = load(
        request.version,
        checkpoint=checkpoint,
        device=request.device,
        precision=request.precision,
        memory="high",  # the autoencoder is called by itself, too
        progress=Progress(quiet=True),
    )
    generate = partial(generators.generate, pipeline, num_steps=request.num_steps, preset=request.preset)
    reconstruct = partial(generators.reconstruct, pipeline)
    config, track = pipeline.config, Progress().track
    if request.picture is not None:
        strips = showcase.orbit_strips if config.family == "sv3d" else showcase.scene_strips
        shown = strips(generate, config, track("drawing", range(NUM_SHOWN), unit="input"))
        showcase.save_animation(showcase.draw_animation(*shown), request.picture)
        return
    start = time.monotonic()
    if config.family == "sv3d":
        report = evaluate_orbits(generate, reconstruct, config, request.num_objects, partial(track, "orbits"))
    else:
        report = evaluate_scenes(generate, reconstruct, config, request.num_pictures, partial(track, "clips"))
    made_with = {
        "version": request.version,
        "checkpoint": checkpoint.describe(),
        "preset": request.preset,
        "num_steps": request.num_steps or PRESETS[request.preset].num_steps(config.num_steps),
        "device": str(pipeline.device),
        "precision": pipeline.precision,
        "seconds": round(time.monotonic() - start, 1),
    }
    write_json(request.output, made_with | report.as_json())
    sys.stdout.write(f"{report.title}\n\n{report.table()}\n\nwritten to {request.output}\n")


if __name__ == "__main__":
    sys.exit(main())
