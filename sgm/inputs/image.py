"""Images from files: read in any mode, laid over white, and fitted to sides that the model takes.

Sizes are (width, height) in pixels throughout, as in PIL; tensors are channel, height, width.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms

from sgm.errors import UserError

if TYPE_CHECKING:
    import torch

# Pillow knows many more formats, some of which start other programs; a file's content decides, not its suffix.
FILE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

MAX_PIXELS = 150_000_000  # takes in a phone's 108 megapixels (half a GB decoded); a decompression bomb has more
MIN_SIDE = 16  # anything smaller is a dot, a line or a tracking pixel, not a picture
MAX_ASPECT = 8  # long side to short side: a model that saw 16:9 makes nothing of a ribbon
MAX_OUTPUT_SIDE = 4096
MIN_BUDGET_SHARE = 0.75  # see fit_size

# EXIF 2.32, tag 0x0112: where the picture's first row and column lie, and so what turns it upright.
ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: Path) -> Image.Image:
    """Read an image file: upright, 8 bits, RGB, or RGBA where it can be transparent. Of several frames, the first.

    Raises:
        UserError: the file is missing, damaged, no image, over `MAX_PIXELS` or under `MIN_SIDE`; names the file.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata, which the picture does without, and of sizes that MAX_PIXELS judges here.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FILE_FORMATS) as file:
                size = file.size
                if math.prod(size) > MAX_PIXELS:
                    raise Image.DecompressionBombError
                file.load()
                image = to_rgb_or_rgba(upright(file))
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{path} is too large: images of up to {MAX_PIXELS // 10**6} megapixels are read; make it smaller"
        ) from error
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: give the path of an image") from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        reason = "no known image format" if isinstance(error, Image.UnidentifiedImageError) else error
        raise UserError(
            f"{path} can't be read as an image ({reason}): give a whole JPEG, PNG, WebP, BMP or TIFF file"
        ) from error
    if min(image.size) < MIN_SIDE:
        raise UserError(
            f"{path} is only {image.width}x{image.height} pixels: give an image of at least {MIN_SIDE} on each side"
        )
    return image


def to_rgb_or_rgba(image: Image.Image) -> Image.Image:
    """Convert from any of PIL's modes to 8-bit RGB, or RGBA where the image carries transparency.

    Of modes without a fixed white, 16-bit ones are divided by 257; 32-bit integers and floats take as white the
    smallest of 1, 255 and 65535 that no pixel exceeds, else their brightest pixel.
    """
    if image.mode in ("RGB", "RGBA") and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        image = _deep_grey_to_8_bit(image)
    elif image.mode == "LAB":
        return ImageCms.profileToProfile(  # type: ignore[return-value]  # None only with inPlace
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    elif image.mode == "La":  # premultiplied grey, which Pillow converts to LA alone
        image = image.convert("LA")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def over_white(image: Image.Image) -> Image.Image:
    """Lay an image of any mode over white; returns 8-bit RGB of the same size."""
    image = to_rgb_or_rgba(image)
    if image.mode == "RGB":
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def fit_size(
    image_size: tuple[int, int],
    trained_size: tuple[int, int],
    multiple: int,
    width: int | None = None,
    height: int | None = None,
) -> tuple[int, int]:
    """Choose the output's (width, height): sides divisible by `multiple`, near the image's own aspect.

    - `width` and `height`, where given, hold. Of one alone, the other follows the image's aspect.
    - An image whose sides are divisible by `multiple` and whose area is within the trained one keeps its size.
    - Otherwise: of all sizes with at least three quarters of the trained area and no more than it, the one whose aspect
      is nearest the image's (by the part of the image that is cropped away), and of equally near ones the largest.
      Without the three quarters, 16:10 would become 512x320, a fourth of the pixels, for its exact aspect.

    Args:
        image_size: the image's (width, height).
        trained_size: the (width, height) that the model was trained at; its area is the budget.
        multiple: what the model's sides must be divisible by, in pixels.
        width: the output's width in pixels, if the user chose it.
        height: the output's height in pixels, if the user chose it.

    Raises:
        UserError: a side that isn't divisible or is out of range, or a side to choose for an image longer than 8:1.
    """
    assert all(side % multiple == 0 for side in trained_size), (trained_size, multiple)
    for name, side in (("width", width), ("height", height)):
        if side is not None:
            _check_side(name, side, multiple)
    if width is not None and height is not None:
        return width, height

    budget = math.prod(trained_size)
    allowed = all(side % multiple == 0 and side <= MAX_OUTPUT_SIDE for side in image_size)
    if width is None and height is None and allowed and math.prod(image_size) <= budget:
        return image_size

    if max(image_size) > MAX_ASPECT * min(image_size):
        raise UserError(
            f"the image is {image_size[0]}x{image_size[1]} pixels, longer than {MAX_ASPECT}:1: "
            "crop it, or give both width and height"
        )
    aspect = image_size[0] / image_size[1]
    if width is not None:
        height = _nearest_side(width / aspect, multiple)
        _check_side("height, which follows from the width,", height, multiple)
        return width, height
    if height is not None:
        width = _nearest_side(height * aspect, multiple)
        _check_side("width, which follows from the height,", width, multiple)
        return width, height

    units = budget // multiple**2
    sizes = [(w, h) for w in range(1, units + 1) for h in range(1, units // w + 1) if w * h >= MIN_BUDGET_SHARE * units]

    def cropped_then_area(size: tuple[int, int]) -> tuple[float, int]:
        # Integers until the last division, so that equally near aspects compare as equal.
        across, down = size[0] * image_size[1], size[1] * image_size[0]
        return min(across, down) / max(across, down), size[0] * size[1]

    best = max(sizes, key=cropped_then_area)
    return best[0] * multiple, best[1] * multiple


def fit_image(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale an RGB image to cover (width, height) and crop it there about its centre, antialiased and never stretched.

    An image that has this size already comes back pixel for pixel.
    """
    if image.size == size:
        return image
    scale = min(image.width / size[0], image.height / size[1])  # image pixels per output pixel
    kept_width, kept_height = size[0] * scale, size[1] * scale
    left, top = (image.width - kept_width) / 2, (image.height - kept_height) / 2
    box = (left, top, left + kept_width, top + kept_height)
    return image.resize(size, Image.Resampling.LANCZOS, box=box)


def image_to_tensor(image: Image.Image) -> torch.Tensor:
    """RGB image -> float32 tensor (1, 3, height, width) in [-1, 1]."""
    import torch

    assert image.mode == "RGB", image.mode
    pixels = torch.from_numpy(np.array(image, dtype=np.float32))
    return (pixels / 255 * 2 - 1).permute(2, 0, 1)[None].contiguous()


def upright(image: Image.Image) -> Image.Image:
    """The image turned as the camera notes, without that note, so that nothing turns it again."""
    try:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except SyntaxError:  # damaged EXIF says nothing of the orientation
        return image
    if orientation not in UPRIGHT:
        return image
    turned = image.transpose(UPRIGHT[orientation])
    for note in ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"):  # wherever Pillow looks for it
        turned.info.pop(note, None)
    return turned


def _deep_grey_to_8_bit(image: Image.Image) -> Image.Image:
    """Modes I;16 (and its byte orders), I and F -> L, or LA where one grey value stands for transparent."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0, neginf=0)
    if image.mode.startswith("I;16"):
        white = 65535.0
    else:
        peak = max(float(values.max()), 0.0)
        white = next((white for white in (1.0, 255.0, 65535.0) if peak <= white), peak)
    grey = Image.fromarray((values.clip(0, white) * (255 / white)).round().astype(np.uint8))
    if isinstance(transparent := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _check_side(name: str, side: int, multiple: int) -> None:
    if side % multiple == 0 and multiple <= side <= MAX_OUTPUT_SIDE:
        return
    nearest = min(_nearest_side(side, multiple), MAX_OUTPUT_SIDE // multiple * multiple)
    raise UserError(
        f"{name} {side} won't do: it must be divisible by {multiple}, from {multiple} to {MAX_OUTPUT_SIDE}, "
        f"such as {nearest}"
    )


def _nearest_side(side: float, multiple: int) -> int:
    return max(multiple, math.floor(side / multiple + 0.5) * multiple)
