"""What a user should know of how a prompt is taken, said before weights are looked for."""

from __future__ import annotations

from ..config import ModelConfig
from ..errors import UserError, shortened
from ..models.words import MAX_WORDS, read_clip_prompt, read_prompt
from ..parameters.prompts import translation
from ..parameters.sampling import SamplingSettings

MAX_NAMED = 10  # words in a line
EXAMPLE = "such as 'pan left slowly' or 'the camera holds still'"


def remarks_on_prompt(settings: SamplingSettings, config: ModelConfig) -> list[str]:
    """A line about the numbers that a prompt stands for, or about the words of it that are ignored.

    Raises UserError for a prompt of which the version knows no word.
    """
    if settings.prompt is None:
        return []
    version, shown = config.version, f"prompt {shortened(repr(settings.prompt))}"
    if not config.takes_prompts:
        said = translation(settings.prompt, config)
        values = ", ".join(f"{name} {value}" for name, value in said.items())
        rate = f", played at {settings.fps:g} frames a second" if "fps_id" in said else ""
        return [f"{shown} stands for {values} in {version}, which reads no text{rate}"]
    if config.text.encoder == "words":
        prompt, room = read_prompt(settings.prompt, config.text.words), MAX_WORDS
    else:
        prompt, room = read_clip_prompt(settings.prompt, config.text.tokens), config.text.tokens - 2
    if not prompt.numbers:
        raise UserError(f"{version} knows no word of {shown}: say it in others, {EXAMPLE}")
    remarks = []
    if prompt.unknown:
        remarks.append(f"warning: {version} ignores words of {shown} that it doesn't know: {_named(prompt.unknown)}")
    if prompt.surplus:
        remarks.append(
            f"warning: {version} reads {room} words, and ignores the last of {shown}: {_named(prompt.surplus)}"
        )
    return remarks


def _named(words: tuple[str, ...]) -> str:
    return ", ".join(shortened(word, 40) for word in words[:MAX_NAMED]) + (", ..." if len(words) > MAX_NAMED else "")
