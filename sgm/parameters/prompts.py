"""What a prompt means for a version: text that its network reads, or words that stand for other parameters.

A prompt that a version can't follow is refused, in whole: nothing in it is accepted and then ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..config import RELEASES, ModelConfig, load_config
from ..errors import UserError, shortened
from ..inputs.prompt import MAX_PROMPT, read_line
from .motion_words import SPEEDS, STRENGTHS, read_motion_words
from .parameter import Kind

DEFAULT_MOTION_BUCKET_ID, DEFAULT_FPS_ID = 127, 6


def _read_prompt(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return read_line(value)


PROMPT = Kind(_read_prompt, f"one line of text, up to {MAX_PROMPT} characters", "TEXT")


@dataclass(frozen=True)
class Motion:
    """How much moves, how fast, and how fast the video plays."""

    motion_bucket_id: int
    fps_id: int
    fps: float


def resolve_motion(
    config: ModelConfig, prompt: str | None, motion_bucket_id: int | None, fps_id: int | None, fps: float | None
) -> Motion:
    """The motion that is asked for, by numbers, or by a prompt where the version reads no text.

    A speed that the prompt asks for is seen at the frame rate of clips without a prompt, so that is what they play at.
    Raises UserError for a prompt that the version can't follow, and for numbers that say otherwise.
    """
    said = {} if prompt is None or config.takes_prompts else translation(prompt, config)
    given = {"motion_bucket_id": motion_bucket_id, "fps_id": fps_id}
    for name, value in said.items():
        if given[name] not in (None, value):
            raise UserError(
                f"prompt {shortened(repr(prompt))} stands for {name} {value} in {config.version}, but {name} is"
                f" {given[name]}: omit one of the two"
            )
    rate = said.get("fps_id", DEFAULT_FPS_ID if fps_id is None else fps_id)
    return Motion(
        said.get("motion_bucket_id", DEFAULT_MOTION_BUCKET_ID if motion_bucket_id is None else motion_bucket_id),
        rate,
        fps or float(DEFAULT_FPS_ID if "fps_id" in said else rate),
    )


def translation(prompt: str, config: ModelConfig) -> dict[str, int]:
    """The parameters that a prompt stands for in a version that reads no text.

    Raises UserError for a prompt that says anything else.
    """
    shown = shortened(repr(prompt))
    if not {"motion_bucket_id", "fps_id"} <= {scalar.name for scalar in config.scalars}:
        raise UserError(f"{config.version} takes no prompt ({shown}), since its motion is an orbit: omit it")
    said = read_motion_words(prompt)
    if said.others or not said.values:
        what = f"can't follow {', '.join(map(repr, said.others[:5]))}" if said.others else "finds no motion"
        raise UserError(
            f"{config.version} {what} in prompt {shown}: it reads no text, and takes only words of strength or speed"
            f" ({', '.join((*STRENGTHS, *SPEEDS))}); for others give {_what_reads_text()}"
        )
    at_rest = ("still", *said.speeds) if "still" in said.strengths else ()
    for names in (said.strengths, said.speeds, at_rest):
        if len(names) > 1:
            raise UserError(f"prompt {shown} says both {' and '.join(names)}: say one of them")
    return said.values


def _what_reads_text() -> str:
    versions = [version for version in RELEASES if load_config(version).takes_prompts]
    named = f" ({', '.join(versions)})" if versions else ""
    return f"a text_adapter, or a version that reads text{named}"
