"""From a clip's decoded frames to those that are written: with the image's details, smooth, back and forth.

Each stage takes the frames of the one before it as they come, so that a clip of any length needs the memory of a few.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..enhance.details import carry_details, enlarged_size
from ..enhance.interpolation import interpolate, num_interpolated
from ..enhance.playback import num_pingpong, pingpong
from ..inputs.image import fit_image, over_white
from ..parameters.sampling import SamplingSettings
from ..stages import Stages

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Finisher:
    """What one clip's frames go through after decoding.

    settings: of the clip. size: (width, height) of its frames as decoded. repeats: whether its last frame leads back to
    its first. detailed: the image as the clip shows it, in the size that the clip is enlarged to, RGB; None where the
    clip stays as it is.
    """

    settings: SamplingSettings
    size: tuple[int, int]
    repeats: bool
    detailed: Image.Image | None

    @classmethod
    def of(cls, settings: SamplingSettings, image: Image.Image, size: tuple[int, int], *, repeats: bool) -> Finisher:
        """For a clip of this size that is made from the image, which is upright and of any mode and size."""
        finishing, detailed = settings.finishing, None
        if finishing.enhance == "details":
            detailed = fit_image(over_white(image), enlarged_size(size, image.size, finishing.enhance_size))
        return cls(settings, size, repeats, detailed)

    @property
    def fps(self) -> float:
        """The frame rate of the finished clip."""
        return self.settings.finishing.out_fps or self.settings.fps

    @property
    def frames_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, 3) of the finished clip."""
        num_frames = num_interpolated(self.settings.num_frames, self.settings.fps, self.fps)
        if self.settings.finishing.pingpong:
            num_frames = num_pingpong(num_frames)
        width, height = self.detailed.size if self.detailed else self.size
        return num_frames, height, width, 3

    def finish(self, chunks: Iterator[Pixels], stages: Stages) -> Iterator[Pixels]:
        """The finished frames of a clip, uint8 (n, H, W, 3) RGB, as they come; `stages` hears what each step takes.

        Details come first, since what is made between frames is then as sharp as they are.
        """
        settings = self.settings
        if self.detailed is not None:
            chunks = stages.measure_each("enhancing", carry_details(chunks, np.asarray(self.detailed)))
        if self.fps != settings.fps:
            smooth = interpolate(chunks, settings.fps, self.fps, settings.num_frames, loop=self.repeats)
            chunks = stages.measure_each("interpolating", smooth)
        return pingpong(chunks) if settings.finishing.pingpong else chunks
