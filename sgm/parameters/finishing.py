"""What becomes of a clip's frames once they are decoded: sharper, smoother, back and forth."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import ModelConfig
from ..errors import UserError
from .parameter import NAME, NUMBER, TRUTH, parameter

ENHANCEMENTS = ("none", "details")  # of `sgm.enhance`


@dataclass(frozen=True)
class FinishingParameters:
    """What becomes of the decoded frames, as requested. None stands for the version's own value."""

    enhance: str | None = parameter(
        None,
        NAME,
        "Make the clip larger and sharper: details carries those of the input image along with the motion"
        " (svd versions only). It changes no motion.",
        choices=ENHANCEMENTS,
        default_text="details for svd_tiny, else none",
    )
    enhance_size: float | None = parameter(
        None,
        NUMBER,
        "How many times as wide and as high enhance makes the clip, at most: never larger than the image itself.",
        low=1,
        high=8,
        default_text="2 where enhance is on",
    )
    out_fps: float | None = parameter(
        None,
        NUMBER,
        "Play at this many frames per second, in the same time: the frames between are made from the motion of their"
        " neighbours (24 looks smooth).",
        low=0.1,
        high=240,
        default_text="fps; no frames are added",
    )
    pingpong: bool = parameter(
        False, TRUTH, "Play the clip forwards and then backwards, so that it can be repeated.", default_text="no"
    )

    def finishing_for(self, config: ModelConfig) -> Finishing:
        """The settings for a version. Raises UserError for what it can't do."""
        enhance = self.enhance or config.enhance
        if enhance == "details" and config.input == "object":
            raise UserError(
                f"{config.version} can't use enhance details, since an orbit shows what the image doesn't: omit it"
            )
        if enhance == "none":
            if self.enhance_size not in (None, 1.0):
                raise UserError(
                    f"enhance_size {self.enhance_size:g} is for enhance details: add that, or omit enhance_size"
                )
            return Finishing(enhance, 1.0, self.out_fps, self.pingpong)
        return Finishing(enhance, self.enhance_size or 2.0, self.out_fps, self.pingpong)


@dataclass(frozen=True)
class Finishing:
    """What becomes of a clip's frames, with everything decided; `FinishingParameters` explains the fields."""

    enhance: str
    enhance_size: float
    out_fps: float | None
    pingpong: bool
