"""TIFF files whose numbers Pillow doesn't read, or reads wrongly: floats, 32 bits, signed ones, white as zero."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sgm.inputs.colours import to_8_bit

if TYPE_CHECKING:
    from tifffile import TiffPage

MIN_IS_WHITE, MIN_IS_BLACK, RGB = 0, 1, 2  # TIFF 6.0, tag 262
INTERLEAVED, PLANAR = 1, 2  # tag 284
PREMULTIPLIED = 1  # tag 338
ORIENTATION_TAG, PROFILE_TAG = 274, 34675


def is_deep_tiff(path: Path) -> bool:
    """Whether a file is a TIFF of samples over 8 bits that Pillow doesn't read, or reads wrongly.

    What Pillow does read is left to it, as it knows LZW, which tifffile alone does not.
    """
    with path.open("rb") as file:
        if file.read(4) not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return False
    import tifffile  # only for TIFF files: its import takes a tenth of a second

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        if page.dtype is None or page.dtype.itemsize == 1:
            return False
        kind, samples = page.dtype.name, page.samplesperpixel
        if page.photometric == RGB:
            return not (kind == "uint16" and samples in (3, 4) and page.planarconfig == INTERLEAVED)
        if page.photometric == MIN_IS_BLACK:
            return not (kind in ("uint16", "int32", "float32") and samples == 1)
        return page.photometric == MIN_IS_WHITE


def read_deep_tiff(path: Path, max_pixels: int) -> Image.Image:
    """The first picture of such a file in 8 bits, L, LA, RGB or RGBA, with its profile and the note on orientation.

    tifffile reads what is not compressed, OpenCV the rest: by itself it knows the usual compressions, and it unpacks no
    more than the picture takes.

    Raises Image.DecompressionBombError for one over `max_pixels`, ValueError for one that is a volume, has more
    channels than a picture or is compressed in a way that OpenCV can't read, and what tifffile raises for a damaged
    one.
    """
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        if page.samplesperpixel > 4 or page.imagedepth > 1:
            raise ValueError(f"its shape is {page.shape}, which is no picture's")
        if page.imagewidth * page.imagelength > max_pixels:
            raise Image.DecompressionBombError
        values = page.asarray() if page.compression == tifffile.COMPRESSION.NONE else _uncompressed(path, page)
        if page.samplesperpixel > 1 and page.planarconfig == PLANAR:
            values = np.moveaxis(values, 0, -1)
        colours = 3 if page.photometric == RGB else 1
        pixels = to_8_bit(values.reshape(page.imagelength, page.imagewidth, page.samplesperpixel))
        if page.photometric == MIN_IS_WHITE:
            pixels[..., 0] = 255 - pixels[..., 0]
        pixels = pixels[..., : colours + 1]  # what comes after alpha is no colour
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        if image.mode == "RGBA" and page.extrasamples[:1] == (PREMULTIPLIED,):
            image = Image.frombytes("RGBa", image.size, image.tobytes()).convert("RGBA")
        if PROFILE_TAG in page.tags:
            image.info["icc_profile"] = bytes(page.tags[PROFILE_TAG].value)
        if ORIENTATION_TAG in page.tags:
            image.getexif()[ORIENTATION_TAG] = int(page.tags[ORIENTATION_TAG].value)
    return image


def _uncompressed(path: Path, page: TiffPage) -> NDArray[np.generic]:
    """The samples of a compressed picture: (height, width) or (height, width, samples)."""
    import cv2

    is_interleaved = page.samplesperpixel == 1 or page.planarconfig == INTERLEAVED
    if not is_interleaved or page.samplesperpixel == 2 or page.dtype == np.float16:  # OpenCV would misread these
        raise ValueError(f"{page.dtype} samples of this layout are read only without compression")
    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)  # what it prints of a damaged file is for its developers
    try:
        values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        log.setLogLevel(level)
    if values is None or values.dtype != page.dtype:
        raise ValueError("its compressed data can't be read")
    if page.samplesperpixel > 1:
        values[..., :3] = values[..., 2::-1].copy()  # OpenCV's order is blue, green, red
    return values
