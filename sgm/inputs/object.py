"""An object for an orbit: cut out of its background, then framed in the middle of a white square."""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sgm.errors import UserError
from sgm.inputs.colours import to_rgb_or_rgba

logger = logging.getLogger(__name__)

MATTING_SIDE = 768  # alpha matting solves a linear system over all pixels; SV3D itself takes 576
MAX_CANVAS_SIDE = 16384  # a square canvas of this side takes 1 GiB
VISIBLE_ALPHA = 16  # of 255: fainter than this nobody sees it on white
CLEAR_SHARE, DUST_SHARE = 0.0001, 0.001
CORNER_SHARE = 1 / 16  # of the shorter side: what may be clear of an opaque picture with rounded corners
MEND = "or give an image whose background is transparent already"


def cut_out(image: Image.Image) -> Image.Image:
    """Image of any mode -> RGBA in which the background is transparent.

    One whose background is clear already comes back as it is. Any other, such as an RGBA that is opaque, nearly so or
    clear in rounded corners alone, is shrunk to at most 768 pixels a side and goes through rembg: U2-Net finds the
    object and alpha matting its edge.
    rembg fetches U2-Net's 168 MiB when they are first needed, and keeps them in its own folder; a line in the log says
    so.

    Raises:
        UserError: rembg is not installed, or it can't fetch or load U2-Net.
    """
    image = to_rgb_or_rgba(image)
    if image.mode == "RGBA" and _has_clear_background(image):
        return image
    if "rembg" not in sys.modules:
        logger.warning("Removing the background: the first time, compiling what it needs takes a minute or more.")
    session = _u2net_session()
    import rembg

    opaque = image.convert("RGB")  # a copy, even of RGB
    opaque.thumbnail((MATTING_SIDE, MATTING_SIDE), Image.Resampling.LANCZOS)
    cut: Image.Image = rembg.remove(opaque, session=session, alpha_matting=True)
    return to_rgb_or_rgba(cut)


def frame_object(image: Image.Image, size: int, image_frame_ratio: float | None = None) -> Image.Image:
    """Centre the visible part of an RGBA image on a white square: RGB, `size` pixels a side.

    Args:
        image: RGBA. The object is what a person sees of it: of alpha `VISIBLE_ALPHA` and more, without specks. The
            original takes whatever has any alpha above 0, so that one faint pixel moves and shrinks the object.
        size: the result's side in pixels.
        image_frame_ratio: the object's longer side as a share of the square's; above 1 the square shows only its
            middle. None: the object keeps its scale in the image, whose height the square takes (or the object's width
            where that is more, so that nothing is lost).

    Raises:
        UserError: nothing in the image is visible, or the ratio is not above 0 or far too small.
    """
    box = _visible_box(image)
    if box is None:
        raise UserError("no object was found: the image is transparent everywhere; give one that shows the object")
    object_ = image.crop(box)
    side = _canvas_side(object_.size, image.height, image_frame_ratio)
    canvas = Image.new("RGBA", (side, side))
    canvas.paste(object_, (side // 2 - object_.width // 2, side // 2 - object_.height // 2))
    canvas = canvas.resize((size, size), Image.Resampling.LANCZOS)

    pixels = np.asarray(canvas) / 255.0
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    return Image.fromarray(((colour * alpha + (1 - alpha)) * 255).astype(np.uint8))


def _has_clear_background(image: Image.Image) -> bool:
    """Whether at least one in ten thousand pixels of an RGBA image is more transparent than not.

    Rounded corners, as of a screenshot, are no background: pixels that are clear in two to four corners and nowhere
    else.
    """
    clear = np.asarray(image.getchannel("A")) < 128
    count = int(np.count_nonzero(clear))
    side = max(1, round(CORNER_SHARE * min(clear.shape)))
    corners = [int(np.count_nonzero(clear[down, across])) for down in _ends(side) for across in _ends(side)]
    has_rounded_corners = sum(corners) == count and sum(corner > 0 for corner in corners) > 1
    return count >= CLEAR_SHARE * clear.size and not has_rounded_corners


def _ends(side: int) -> tuple[slice, slice]:
    return slice(side), slice(-side, None)


def _visible_box(image: Image.Image) -> tuple[int, int, int, int] | None:
    """The box (left, top, right, bottom) around the visible pieces of an RGBA image; None where nothing is visible.

    A piece smaller than a thousandth of the largest one is dust.
    """
    import cv2

    visible = (np.asarray(image.getchannel("A")) >= VISIBLE_ALPHA).astype(np.uint8)
    _, _, pieces, _ = cv2.connectedComponentsWithStats(visible, connectivity=8)
    pieces = pieces[1:]  # the first is all that is not visible
    if len(pieces) == 0:
        return None
    areas = pieces[:, cv2.CC_STAT_AREA]
    left, top, width, height, _ = pieces[areas >= DUST_SHARE * areas.max()].T
    return int(left.min()), int(top.min()), int((left + width).max()), int((top + height).max())


def _canvas_side(object_size: tuple[int, int], image_height: int, image_frame_ratio: float | None) -> int:
    if image_frame_ratio is None:
        own_side = max(image_height, object_size[0])
        if own_side > MAX_CANVAS_SIDE:
            raise UserError(
                f"the image is too large: orbits take up to {MAX_CANVAS_SIDE} pixels a side, not {own_side}"
            )
        return own_side
    if not (math.isfinite(image_frame_ratio) and image_frame_ratio > 0):
        raise UserError(f"image_frame_ratio {image_frame_ratio} is not allowed: it must be above 0, such as 0.8")
    side = max(object_size) / image_frame_ratio
    if side > MAX_CANVAS_SIDE:
        raise UserError(
            f"image_frame_ratio {image_frame_ratio:g} is too small for an object of {max(object_size)} pixels: "
            f"at least {max(object_size) / MAX_CANVAS_SIDE:.3g}, or a smaller image"
        )
    return max(1, int(side))


@functools.cache
def _u2net_session() -> Any:
    """rembg's session for U2-Net; kept, because loading takes seconds and a folder has many images."""
    # onnxruntime reports its use to Microsoft unless this is set before its import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime  # noqa: F401  # first: without it rembg prints and exits
        import rembg
    except ImportError as error:
        raise UserError(
            f"the background can't be removed, as {error.name or 'rembg'} is missing ({error}): "
            f'pip install "rembg[cpu]", {MEND}'
        ) from error

    home = _legacy_model_folder()
    if not any((folder / "u2net.onnx").exists() for folder in (home, _model_folder())):
        logger.warning("Fetching U2-Net (168 MiB, once) to remove the background; rembg keeps it for the next time.")
    try:
        return rembg.new_session("u2net")  # by name: rembg's newer default may not be used commercially
    except Exception as error:  # no connection, room or permission, a wrong checksum, or one of onnxruntime's own kinds
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 160)
        raise UserError(
            f"the background can't be removed, as U2-Net could not be fetched or loaded ({reason}): "
            f"put u2net.onnx from rembg's releases page into {home}, {MEND}"
        ) from error


def _legacy_model_folder() -> Path:
    """Where every version of rembg looks for its models."""
    return Path(os.getenv("U2NET_HOME") or Path(os.getenv("XDG_DATA_HOME", "~"), ".u2net")).expanduser()


def _model_folder() -> Path:
    """Where rembg of late keeps what it fetches."""
    data = os.getenv("XDG_DATA_HOME")
    default = Path(data, "rembg") if data else Path("~/.rembg")
    home = Path(os.getenv("U2NET_HOME") or os.getenv("REMBG_HOME") or default)
    return home.expanduser() / "models" / "u2net"
