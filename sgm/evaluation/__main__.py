"""`python -m sgm.evaluation VERSION`: measures a bundled model on held-out data, or draws its clips."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoint.finding import find_checkpoint
from ..config import RELEASES
from ..errors import UserError
from ..metrics.tables import check_can_write, write_json
from ..parameters.choices import device_parameter, fp8_parameter, precision_parameter
from ..parameters.command_line import Command, run
from ..parameters.parameter import NAME, PATH, TRUTH, WHOLE, parameter, read_fields
from ..parameters.presets import PRESETS
from ..progress import Progress
from ..storage.files import output_folder

if TYPE_CHECKING:
    from ..generation.pipeline import Pipeline
    from .generators import Generate
    from .report import Report
    from .tradeoffs import Losses

BUNDLED = tuple(version for version, release in RELEASES.items() if release.repository is None)
PICTURE_SUFFIXES = (".webp", ".gif")
NUM_SHOWN = 6


@dataclass(frozen=True)
class EvaluationRequest:
    """An evaluation as requested on the command line. Raises UserError for a value that isn't allowed."""

    version: str = parameter("", NAME, "Which model to measure.", choices=BUNDLED, default_text="none")
    checkpoint: Path | None = parameter(
        None, PATH, "The file with its weights.", default_text="checkpoints/VERSION.safetensors of the project"
    )
    output: Path = parameter(
        None,
        PATH,
        "The JSON file for the scores; an earlier one is replaced.",
        default_text="outputs/evaluation/VERSION.json, or VERSION-losses.json",
    )
    picture: Path | None = parameter(
        None,
        PATH,
        "Draw the clips of the first held-out inputs as an animated .webp or .gif, and measure nothing.",
        default_text="none",
    )
    losses: bool = parameter(
        False,
        TRUTH,
        "Measure instead what each preset and each way to save time or memory loses.",
        default_text="no",
    )
    num_objects: int = parameter(128, WHOLE, "How many held-out objects sv3d_tiny orbits.", low=1, high=10**6)
    num_pictures: int = parameter(
        4, WHOLE, "How many held-out pictures svd_tiny sets in motion, 13 times each.", low=1, high=10**6
    )
    num_steps: int | None = parameter(
        None, WHOLE, "How many denoising steps to take.", low=1, high=1000, default_text="the version's own"
    )
    preset: str = parameter(
        "exact", NAME, "How far to trade fidelity for speed, as in sample.py.", choices=tuple(PRESETS)
    )
    fp8: str = fp8_parameter()
    device: str | None = device_parameter()
    precision: str | None = precision_parameter()

    def __post_init__(self) -> None:
        read_fields(self)
        if self.output is None:
            name = f"{self.version}-losses.json" if self.losses else f"{self.version}.json"
            object.__setattr__(self, "output", output_folder("evaluation") / name)
        if self.losses:
            for name, default in {"picture": None, "preset": "exact", "num_steps": None, "fp8": "off"}.items():
                if getattr(self, name) != default:
                    raise UserError(f"losses sets these itself: omit {name}")
        if self.picture is not None and self.picture.suffix.lower() not in PICTURE_SUFFIXES:
            raise UserError(f"picture can't be {str(self.picture)!r}: give a name ending in .webp or .gif")


COMMAND = Command[EvaluationRequest](
    usage=f"python -m sgm.evaluation {'|'.join(BUNDLED)}",
    purpose="Measures a bundled model on data that it never trained on: prints a table and writes JSON.",
    kinds=(EvaluationRequest,),
    leading=("version",),
    example="--num_objects 128",
)


def evaluate(request: EvaluationRequest) -> None:
    """Measure or draw, with progress on stderr."""
    checkpoint = find_checkpoint(request.version, request.checkpoint)
    check_can_write(request.picture or request.output)

    from ..generation.pipeline import load  # only now: torch takes seconds to import

    load_with = partial(
        load,
        request.version,
        checkpoint=checkpoint,
        device=request.device,
        precision=request.precision,
        memory="high",  # the autoencoder is also called on its own
        progress=Progress(quiet=True),
    )
    if request.picture is not None:
        _draw(load_with(fp8=request.fp8), request)
        return
    start = time.monotonic()
    pipeline, found = (_losses if request.losses else _scores)(load_with, request)
    made_with = {
        "version": request.version,
        "checkpoint": checkpoint.describe(),
        "device": str(pipeline.device),
        "precision": pipeline.precision,
        "seconds": round(time.monotonic() - start, 1),
    }
    if not request.losses:
        steps = request.num_steps or PRESETS[request.preset].num_steps(pipeline.config.num_steps)
        made_with |= {"preset": request.preset, "num_steps": steps, "fp8": request.fp8}
    write_json(request.output, made_with | found.as_json())
    sys.stdout.write(f"{found.title}\n\n{found.table()}\n\nwritten to {request.output}\n")


def _generate_as_asked(pipeline: Pipeline, request: EvaluationRequest) -> Generate:
    from .generators import generate

    return partial(generate, pipeline, num_steps=request.num_steps, preset=request.preset)


def _draw(pipeline: Pipeline, request: EvaluationRequest) -> None:
    from . import showcase

    assert request.picture is not None
    strips = showcase.orbit_strips if pipeline.config.input == "object" else showcase.scene_strips
    numbers = Progress().track("drawing", range(NUM_SHOWN), unit="input")
    shown = strips(_generate_as_asked(pipeline, request), pipeline.config, numbers)
    showcase.save_animation(showcase.draw_animation(*shown), request.picture)


def _scores(load_with: Callable[..., Pipeline], request: EvaluationRequest) -> tuple[Pipeline, Report]:
    from .camera_moves import evaluate_scenes
    from .generators import reconstruct
    from .orbits import evaluate_orbits

    pipeline = load_with(fp8=request.fp8)
    given = _generate_as_asked(pipeline, request), partial(reconstruct, pipeline), pipeline.config
    track = Progress().track
    if pipeline.config.input == "object":
        report = evaluate_orbits(*given, request.num_objects, partial(track, "orbits"))
    else:
        report = evaluate_scenes(*given, request.num_pictures, partial(track, "clips"))
    return pipeline, report


def _losses(load_with: Callable[..., Pipeline], request: EvaluationRequest) -> tuple[Pipeline, Losses]:
    from .generators import generate, with_guidance
    from .tradeoffs import Way, measure_losses, released_guidance

    pipeline = load_with()

    def generate_in(way: Way) -> Generate:
        used = pipeline if way.fp8 == pipeline.fp8 else load_with(fp8=way.fp8)
        if way.guided:
            used = with_guidance(used, released_guidance(pipeline.config))
        return partial(generate, used, **way.sampling)

    count = request.num_objects if pipeline.config.input == "object" else request.num_pictures
    return pipeline, measure_losses(generate_in, pipeline.config, count, partial(Progress().track, unit="clip"))


def main(words: Sequence[str] | None = None) -> int:
    """Run the command with the arguments `words`; returns the exit code (see `command_line.run`)."""
    return run(COMMAND, evaluate, words)


if __name__ == "__main__":
    sys.exit(main())
