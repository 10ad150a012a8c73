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
from ..inputs.image import fit_image, over_white
from ..parameters.finishing import Finishing
from ..stages import Stages

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Finisher:
    """What one clip's frames go through.

    detailed: the image as the clip shows it, in the size that the clip is enlarged to, RGB; None where it is not.
    """

    finishing: Finishing
    detailed: Image.Image | None

    @classmethod
    def of(cls, finishing: Finishing, image: Image.Image, size: tuple[int, int]) -> Finisher:
        """For a clip of this (width, height) that is made from the image, upright and of any mode and size."""
        if finishing.enhance == "none":
            return cls(finishing, None)
        enlarged = enlarged_size(size, image.size, finishing.enhance_size)
        return cls(finishing, fit_image(over_white(image), enlarged))

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) of the finished frames, for frames of this one."""
        return size if self.detailed is None else self.detailed.size

    def finish(self, chunks: Iterator[Pixels], stages: Stages) -> Iterator[Pixels]:
        """The finished frames of a clip, uint8 (n, H, W, 3) RGB, as they come; `stages` hears what each step takes."""
        if self.detailed is not None:
            chunks = stages.measure_each("enhancing", carry_details(chunks, np.asarray(self.detailed)))
        return chunks
