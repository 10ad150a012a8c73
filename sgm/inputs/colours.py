"""From the colours that a file holds to 8-bit sRGB, which the models know and screens show."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

FIXED_WHITES = {"uint8": 255.0, "uint16": 65535.0, "int16": 32767.0}
SHARE_ABOVE_WHITE, OVERSHOOT = 0.01, 1.25  # highlights that overshoot don't decide what white is


def to_rgb_or_rgba(image: Image.Image) -> Image.Image:
    """Convert from any of PIL's modes to 8-bit sRGB, or sRGB with alpha where the image carries transparency.

    An embedded colour profile is honoured, and gone afterwards; a damaged one, or one of another kind of colours than
    the image's, counts as sRGB. For modes without a fixed white see `to_8_bit`.
    """
    if image.mode in ("RGB", "RGBA") and not {"transparency", "icc_profile"} & image.info.keys():
        return image
    profile = _profile_of(image)
    if image.mode.startswith(("I", "F")):
        image = _deep_grey_to_8_bit(image)
    elif image.mode == "LAB":
        return _converted(image, ImageCms.createProfile("LAB"), "RGB")
    elif image.mode == "La" or (image.mode == "L" and "transparency" in image.info):
        image = image.convert("LA")  # of premultiplied grey Pillow knows no other way
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if profile is None:
        return _without_profile(image.convert(mode))
    space = profile.profile.xcolor_space.strip()
    if space == "RGB":
        return _converted(image.convert(mode), profile, mode)
    if space == "GRAY" and image.mode in ("1", "L", "LA"):
        rgb = _converted(image.convert("L"), profile, "RGB")
        if image.mode == "LA":
            rgb.putalpha(image.getchannel("A"))
        return rgb
    if space == "CMYK" and image.mode == "CMYK":
        return _converted(image, profile, "RGB")
    return _without_profile(image.convert(mode))


def to_8_bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey or colour values of any type as bytes.

    Of integers of 8 and 16 bits white is the type's largest value. Of other types, in which files keep anything, it is
    the smallest of 1, 255 and 65535 that nearly no pixel exceeds by a quarter, else the brightest value; what is no
    number is black.
    """
    numbers = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    white = FIXED_WHITES.get(values.dtype.name) or _white_of(numbers)
    return (numbers.clip(0, white) * (255 / white)).round().astype(np.uint8)


def _white_of(numbers: NDArray[np.float64]) -> float:
    brightest, high = max(float(numbers.max()), 0.0), float(np.quantile(numbers, 1 - SHARE_ABOVE_WHITE))
    return next((white for white in (1.0, 255.0, 65535.0) if high <= OVERSHOOT * white), brightest)


def _profile_of(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    embedded = image.info.get("icc_profile")
    if not embedded:
        return None
    try:
        return ImageCms.ImageCmsProfile(BytesIO(embedded))
    except (OSError, TypeError, ValueError):
        return None


def _converted(image: Image.Image, profile: Any, mode: str) -> Image.Image:
    """The image of a profile (of ImageCms) in sRGB; as it is, where the profile can't be used or is sRGB's own."""
    try:
        is_srgb = image.mode == mode and _changes_nothing(profile)
        converted = image.convert(mode) if is_srgb else _through(profile, image, mode)
    except ImageCms.PyCMSError:
        converted = image.convert(mode)
    return _without_profile(converted)


def _changes_nothing(profile: Any) -> bool:
    """Whether RGB colours keep their numbers: many photos carry sRGB's own profile, and converting takes a second."""
    levels = np.linspace(0, 255, 16).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(64, 64, 3)
    converted = _through(profile, Image.fromarray(colours), "RGB")
    return int(np.abs(np.asarray(converted, int) - colours).max()) <= 1


def _through(profile: Any, image: Image.Image, mode: str) -> Image.Image:
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    if image.mode == "L":
        flags |= ImageCms.Flags.NOOPTIMIZE  # Little CMS's shortcut for grey is up to 10 levels off in the shadows
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    converted = ImageCms.profileToProfile(
        image, profile, ImageCms.createProfile("sRGB"), renderingIntent=intent, outputMode=mode, flags=flags
    )
    assert converted is not None, "None only with inPlace"
    return converted


def _without_profile(image: Image.Image) -> Image.Image:
    image.info.pop("icc_profile", None)
    return image


def _deep_grey_to_8_bit(image: Image.Image) -> Image.Image:
    """Modes I;16 (and its byte orders), I and F -> L, or LA where one grey value stands for transparent."""
    values = np.asarray(image)
    grey = Image.fromarray(to_8_bit(values))
    if isinstance(transparent := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey
