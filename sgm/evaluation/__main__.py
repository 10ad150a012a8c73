"""`python -m sgm.evaluation`: measures a bundled model on held-out data, or what finishes clips on videos."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..checkpoint.finding import find_checkpoint
from ..config import RELEASES, load_config
from ..errors import UserError
from ..inputs.find import VIDEO_SUFFIXES
from ..metrics.tables import check_can_write, write_json
from ..parameters.choices import device_parameter, fp8_parameter, precision_parameter
from ..parameters.command_line import Command, run
from ..parameters.finishing import ENHANCEMENTS
from ..parameters.parameter import NAME, PATH, TRUTH, WHOLE, parameter, read_fields
from ..parameters.presets import PRESETS
from ..progress import Progress
from ..storage.files import output_folder

if TYPE_CHECKING:
    from ..generation.pipeline import Pipeline
    from .generators import Generate
    from .report import Report
    from .tradeoffs import Losses


class Findings(Protocol):
    """What every measurement comes to."""

    @property
    def title(self) -> str:
        """What was measured."""

    def table(self) -> str:
        """The scores, in Markdown."""

    def as_json(self) -> dict[str, Any]:
        """The same with all details."""


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
        default_text="outputs/evaluation/VERSION.json, or VERSION-losses.json, or VERSION-details.json",
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
    enhance: str | None = parameter(
        None,
        NAME,
        "Measure instead what this makes of held-out photographs in motion, as soft and noisy as the version's clips.",
        choices=ENHANCEMENTS[1:],
        default_text="none",
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
            what = "-losses" if self.losses else f"-{self.enhance}" if self.enhance else ""
            object.__setattr__(self, "output", output_folder("evaluation") / f"{self.version}{what}.json")
        if self.enhance is not None:
            for name in ("losses", "picture"):
                if getattr(self, name):
                    raise UserError(f"enhance measures something else than {name}: omit one of the two")
            if load_config(self.version).input == "object":
                raise UserError(f"{self.version} can't use enhance {self.enhance}: give svd_tiny")
        if self.losses:
            for name, default in {"picture": None, "preset": "exact", "num_steps": None, "fp8": "off"}.items():
                if getattr(self, name) != default:
                    raise UserError(f"losses sets these itself: omit {name}")
        if self.picture is not None and self.picture.suffix.lower() not in PICTURE_SUFFIXES:
            raise UserError(f"picture can't be {str(self.picture)!r}: give a name ending in .webp or .gif")


@dataclass(frozen=True)
class InterpolationRequest:
    """A measurement of interpolation as requested on the command line."""

    videos: Path = parameter(None, PATH, "A video file, or a folder of them.", default_text="none")
    output: Path = parameter(
        output_folder("evaluation") / "interpolation.json",
        PATH,
        "The JSON file for the scores; an earlier one is replaced.",
    )
    most_frames: int = parameter(120, WHOLE, "How many frames of each video to read.", low=3, high=10**6)

    def __post_init__(self) -> None:
        read_fields(self)
        if self.videos is None:
            raise UserError("videos is missing: give a video file, or a folder of them")


COMMAND = Command[EvaluationRequest](
    usage=f"python -m sgm.evaluation {'|'.join(BUNDLED)}",
    purpose="Measures a bundled model on data that it never trained on: prints a table and writes JSON.",
    kinds=(EvaluationRequest,),
    leading=("version",),
    example="--num_objects 128",
    more_help=lambda: "python -m sgm.evaluation interpolation --help: measures --out_fps on videos.",
)


INTERPOLATION = Command[InterpolationRequest](
    usage="python -m sgm.evaluation interpolation VIDEOS",
    purpose="Measures --out_fps on videos: leaves out every second frame, makes it again, and compares.",
    kinds=(InterpolationRequest,),
    leading=("videos",),
    example="--most_frames 40",
)


def measure_interpolation(request: InterpolationRequest) -> None:
    """Measure on each video, with progress on stderr."""
    from .interpolation import evaluate_interpolation

    check_can_write(request.output)
    track = partial(Progress().track, unit="video")
    _publish(evaluate_interpolation(_videos_in(request.videos), request.most_frames, track), request.output)


def _videos_in(path: Path) -> list[Path]:
    """The video, or those in the folder. Raises UserError where there are none."""
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    videos = [file for file in found if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file()]
    if not videos:
        raise UserError(f"{path} is no video, and no folder of any: give a file ending in {', '.join(VIDEO_SUFFIXES)}")
    return videos


def measure_enhancement(request: EvaluationRequest) -> None:
    """Measure on each held-out clip, with progress on stderr."""
    from ..enhance.details import carry_details
    from .enhancement import evaluate_enhancement, true_clips

    check_can_write(request.output)
    track = partial(Progress().track, "clips", unit="clip")
    _publish(evaluate_enhancement(carry_details, list(true_clips()), track), request.output, enhance=request.enhance)


def evaluate(request: EvaluationRequest) -> None:
    """Measure or draw, with progress on stderr."""
    if request.enhance is not None:
        measure_enhancement(request)
        return
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
    _publish(found, request.output, **made_with)


def _publish(found: Findings, output: Path, **made_with: Any) -> None:
    """Write what was found as JSON, with what it was made with, and print it as a table."""
    write_json(output, made_with | found.as_json())
    sys.stdout.write(f"{found.title}\n\n{found.table()}\n\nwritten to {output}\n")


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
    words = sys.argv[1:] if words is None else words
    if words[:1] == ["interpolation"]:
        return run(INTERPOLATION, measure_interpolation, words[1:])
    return run(COMMAND, evaluate, words)


if __name__ == "__main__":
    sys.exit(main())
