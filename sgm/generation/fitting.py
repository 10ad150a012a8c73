"""From an image of any kind to the picture that a version of the model sees."""

from __future__ import annotations

from PIL import Image

from ..config import ModelConfig
from ..inputs.image import fit_image, fit_size, over_white
from ..inputs.object import cut_out, frame_object
from ..parameters.sampling import Framing


def fit(image: Image.Image, config: ModelConfig, framing: Framing) -> Image.Image:
    """The RGB picture that the model sees: its object framed on white, or all of it, scaled and cropped.

    Raises UserError for an image without an object, an object that can't be
    cut out, and a shape that no size follows from.
    """
    size = fitted_size(image.size, config, framing)
    if config.input == "object":
        return frame_object(cut_out(image), size[0], framing.image_frame_ratio)
    return fit_image(over_white(image), size)


def fitted_size(image_size: tuple[int, int], config: ModelConfig, framing: Framing) -> tuple[int, int]:
    """The (width, height) of the picture that `fit` makes of an image of that size; raises UserError as `fit` does."""
    trained_size = (config.width, config.height)
    return fit_size(image_size, trained_size, config.size_multiple, framing.width, framing.height)
