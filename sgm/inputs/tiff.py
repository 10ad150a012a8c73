"""TIFF files whose numbers Pillow doesn't read, or reads wrongly: floats, 32 bits, signed ones, white as zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sgm.inputs.colours import to_8_bit

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

    Raises Image.DecompressionBombError for one over `max_pixels`, ValueError for one that is a volume or has more
    channels than a picture, and what tifffile raises for a damaged one.
    """
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        if page.samplesperpixel > 4 or page.imagedepth > 1:
            raise ValueError(f"its shape is {page.shape}, which is no picture's")
        if page.imagewidth * page.imagelength > max_pixels:
            raise Image.DecompressionBombError
        values = page.asarray()
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
