"""What may be asked of the benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import RELEASES
from ..errors import UserError
from ..parameters.choices import MEMORY_MODES, compile_parameter, device_parameter, fp8_parameter, precision_parameter
from ..parameters.parameter import NAME, NAMES, NUMBER, PATH, TRUTH, WHOLE, Kind, parameter, read_fields
from ..parameters.presets import PRESETS
from ..storage.files import output_folder


def _read_size(value: Any) -> tuple[int, int]:
    width, height = value.lower().split("x") if isinstance(value, str) else value
    return int(width), int(height)


SIZE = Kind(_read_size, "WIDTHxHEIGHT, both", "WIDTHxHEIGHT")


@dataclass(frozen=True)
class BenchmarkRequest:
    """What the command line asks for. Raises UserError for a value that isn't allowed."""

    version: str = parameter("svd_tiny", NAME, "Which model to measure.", choices=tuple(RELEASES))
    size: tuple[int, int] | None = parameter(
        None, SIZE, "The clip's width and height in pixels.", low=8, high=8192, default_text="the version's own"
    )
    frames: int | None = parameter(
        None, WHOLE, "How many frames to make.", low=1, high=1024, default_text="the version's own"
    )
    steps: int | None = parameter(
        None, WHOLE, "How many denoising steps to take.", low=1, high=1000, default_text="the preset's"
    )
    model_channels: int | None = parameter(
        None,
        WHOLE,
        "Measure a model of the version's structure that is narrower, with so many channels at its finest level and"
        " random weights.",
        low=32,
        high=1024,
        default_text="the version's own",
    )
    preset: tuple[str, ...] = parameter(
        ("exact",), NAMES, "The presets to measure, one after the other.", choices=tuple(PRESETS), default_text="exact"
    )
    memory: tuple[str, ...] = parameter(
        ("high",), NAMES, "The memory modes to measure each of them in.", choices=MEMORY_MODES, default_text="high"
    )
    precision: str | None = precision_parameter()
    fp8: str = fp8_parameter()
    device: str | None = device_parameter()
    compile: bool = compile_parameter()
    against: str | None = parameter(
        None,
        NAME,
        "Measure this beside, with the same weights on the same device, in turn: diffusers' pipeline as it is, and on"
        " cuda compiled as well.",
        choices=("diffusers",),
        default_text="nothing",
    )
    warmups: int = parameter(3, WHOLE, "How many runs to make before those that count.", low=0, high=100)
    repeats: int = parameter(5, WHOLE, "How many runs count, by their median.", low=1, high=100)
    reference: bool = parameter(
        True,
        TRUTH,
        "Make the exact clip in fp32 too, and say how near the others come: with a model of full size it takes the"
        " longest.",
        default_text="yes",
    )
    cap_gb: float | None = parameter(
        None,
        NUMBER,
        "Refuse memory of the graphics card beyond so many GB (1e9 bytes), as a smaller card would.",
        low=0.1,
        high=1000,
        default_text="none",
    )
    output: Path = parameter(
        None,
        PATH,
        "The JSON file for what is found, beside which a chart goes; earlier ones are replaced.",
        default_text="outputs/benchmark/VERSION.json",
    )

    def __post_init__(self) -> None:
        read_fields(self)
        if self.output is None:
            object.__setattr__(self, "output", output_folder("benchmark") / f"{self.version}.json")
        if self.output.suffix != ".json":
            raise UserError(f"output can't be {str(self.output)!r}: give a name that ends in .json")
