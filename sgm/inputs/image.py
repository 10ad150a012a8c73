"""Images from files: read in any mode, laid over white, and fitted to sides that the model takes.

Sizes are (width, height) in pixels throughout, as in PIL; tensors are channel, height, width.
"""

from __future__ import annotations

import math
import mmap
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageOps

from sgm.errors import UserError
from sgm.inputs.coded_colours import HEAD_BYTES, coded_profile
from sgm.inputs.colours import to_rgb_or_rgba
from sgm.inputs.find import VIDEO_SUFFIXES
from sgm.inputs.tiff import is_deep_tiff, read_deep_tiff
from sgm.inputs.video import first_frame
from sgm.storage.files import open_regular

if TYPE_CHECKING:
    import torch

# Pillow knows many more formats, some of which start other programs; a file's content decides, not its suffix.
FILE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
KNOWN_FORMATS = "JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP or TIFF"
AVIF_BRANDS = {b"avif", b"avis"}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"miaf"}  # ISO/IEC 23008-12

MAX_PIXELS = 150_000_000  # takes in a phone's 108 megapixels (half a GB decoded); a decompression bomb has more
MAX_SCANNED_PIXELS = 2_000_000_000  # of a progressive JPEG, over all its scans: usual ones have ten
START_OF_SCAN, END_OF_JPEG = b"\xff\xda", b"\xff\xd9"  # ITU-T T.81, table B.1
JPEG_MARKER = re.compile(rb"\xff[^\x00-\xbf\xd0-\xd8\xff]")  # those with a length
MIN_SIDE = 16  # anything smaller is a dot, a line or a tracking pixel, not a picture
MAX_ASPECT = 8  # long side to short side: a model that saw 16:9 makes nothing of a ribbon
MAX_OUTPUT_SIDE = 4096
MIN_BUDGET_SHARE = 0.75  # see fit_size


def read_image(path: Path) -> Image.Image:
    """Read an image file, or a video's first frame: upright, 8-bit sRGB, RGB, or RGBA where it can be transparent.

    Of several pictures in a file the first counts.

    Raises:
        UserError: the file is missing, damaged, no image, over `MAX_PIXELS` or under `MIN_SIDE`; names the file.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata, which the picture does without, and of sizes that MAX_PIXELS judges here.
            warnings.simplefilter("ignore")
            image = to_rgb_or_rgba(_decoded(path))
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{path} is too large: images of up to {MAX_PIXELS // 10**6} megapixels are read; make it smaller"
        ) from error
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: give the path of an image") from error
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        reason = getattr(error, "strerror", None) or error  # an OSError's words, without its number and the path again
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "no known image format"
        raise UserError(f"{path} can't be read as an image ({reason}): give a complete {KNOWN_FORMATS} file") from error
    if min(image.size) < MIN_SIDE:
        raise UserError(
            f"{path} is only {image.width}x{image.height} pixels: give an image of at least {MIN_SIDE} on each side"
        )
    return image


def upright(image: Image.Image) -> Image.Image:
    """The image turned as the camera notes, without that note, so that nothing turns it again."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except SyntaxError:  # damaged EXIF says nothing of the orientation
        return image
    if orientation == 1:
        return image
    image = image.copy()
    for note in ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"):  # Pillow would write these again, and
        image.info.pop(note, None)  # fail where any other tag is damaged
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(image)


def _decoded(path: Path) -> Image.Image:
    """The picture of a file, upright, in the file's own colours."""
    with open_regular(path) as file:
        head = file.read(HEAD_BYTES)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return first_frame(path, MAX_PIXELS)
    if is_deep_tiff(path):
        return upright(read_deep_tiff(path, MAX_PIXELS))
    with _opened(path, _brands(head)) as image:
        if math.prod(image.size) > MAX_PIXELS:
            raise Image.DecompressionBombError
        if image.format in ("JPEG", "MPO"):
            _check_scans(path, math.prod(image.size))
        image.load()
        if profile := coded_profile(image, head):
            image.info["icc_profile"] = profile
        return upright(image)


def _brands(head: bytes) -> set[bytes]:
    """The major and the compatible brands of an ISO base media file (ISO/IEC 14496-12), none of another file."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[at : at + 4] for at in (8, *range(16, end, 4))}  # a version number stands between them


def _opened(path: Path, brands: set[bytes]) -> Image.Image:
    """The file as Pillow opens it, not decoded yet. By itself Pillow goes by the major brand alone."""
    if brands & AVIF_BRANDS:
        from PIL.AvifImagePlugin import AvifImageFile

        return AvifImageFile(path)
    if brands & HEIF_BRANDS:
        from pillow_heif import HeifImageFile  # only for such files

        return HeifImageFile(path)
    return Image.open(path, formats=FILE_FORMATS)


def _check_scans(path: Path, pixels: int) -> None:
    """Raises ValueError for a JPEG whose scans would take minutes to decode.

    Markers are followed as a decoder does, from segment to segment: previews within segments, and the video that a
    phone appends to a photo, hold bytes that only look like scans.
    """
    most, found = max(MAX_SCANNED_PIXELS // pixels, 1), 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        position = 0
        while (marker := JPEG_MARKER.search(content, position)) and marker[0] != END_OF_JPEG:
            found += marker[0] == START_OF_SCAN
            if found > most:
                raise ValueError(f"it has more than {most} scans, which would take minutes: save it anew")
            length = int.from_bytes(content[marker.end() : marker.end() + 2], "big")
            position = marker.end() + max(length, 2)


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
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def image_to_tensor(image: Image.Image) -> torch.Tensor:
    """RGB image -> float32 tensor (1, 3, height, width) in [-1, 1]."""
    import torch

    assert image.mode == "RGB", image.mode
    pixels = torch.from_numpy(np.array(image, dtype=np.float32))
    return (pixels / 255 * 2 - 1).permute(2, 0, 1)[None].contiguous()


def _check_side(name: str, side: int, multiple: int) -> None:
    if side % multiple == 0 and multiple <= side <= MAX_OUTPUT_SIDE:
        return
    nearest = min(_nearest_side(side, multiple), MAX_OUTPUT_SIDE // multiple * multiple)
    raise UserError(
        f"{name} {side} is not allowed: it must be divisible by {multiple}, from {multiple} to {MAX_OUTPUT_SIDE}, "
        f"such as {nearest}"
    )


def _nearest_side(side: float, multiple: int) -> int:
    return max(multiple, math.floor(side / multiple + 0.5) * multiple)
