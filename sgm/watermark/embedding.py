"""Writing the watermark into frames.

Two of the method's habits are kept because marked frames would differ without them: the wavelet's two mixed bands
change places on the way back, and U and V are cut to 8 bits, which dulls the purest reds a little.
"""

from __future__ import annotations

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

MESSAGE = 0xB3EC907BB19E
MESSAGE_BITS = np.array([MESSAGE >> shift & 1 for shift in range(47, -1, -1)])  # the most significant bit first

MIN_PIXELS = 256 * 256  # the package refuses smaller frames
STEP = 36  # quantisation step of a low-pass coefficient: twice as many levels of U
BLOCK = 4  # coefficients along a block's side, so 8 pixels

Array = NDArray[np.generic]
Frame = NDArray[np.uint8]


def can_watermark(height: int, width: int) -> bool:
    """Whether frames of this size are large enough to carry the watermark, at least once."""
    blocks = (height // (2 * BLOCK)) * (width // (2 * BLOCK))
    return height * width >= MIN_PIXELS and blocks >= len(MESSAGE_BITS)


def embed_watermark(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mark a frame (H, W, 3), or each of several (T, H, W, 3), uint8 RGB; too small a frame comes back as it is.

    The result is a new array of the same shape, at about 40 dB to the original.
    """
    assert frames.dtype == np.uint8, f"frames must be uint8, not {frames.dtype}"
    assert frames.ndim in (3, 4), f"frames must be (H, W, 3) or (T, H, W, 3), not {frames.shape}"
    assert frames.shape[-1] == 3, f"frames must be (H, W, 3) or (T, H, W, 3), not {frames.shape}"
    if not can_watermark(*frames.shape[-3:-1]):
        return frames.copy()
    return _embed_in_frame(frames) if frames.ndim == 3 else np.stack([_embed_in_frame(frame) for frame in frames])


def _embed_in_frame(rgb: Frame) -> Frame:
    import cv2

    yuv = to_yuv(rgb)
    u = marked_part(yuv)
    low, high = haar(u, axis=0)
    (low_low, low_high), (high_low, high_high) = haar(low, axis=1), haar(high, axis=1)
    _write_message(low_low)
    low, high = _inverse_haar(low_low, high_low, axis=1), _inverse_haar(low_high, high_high, axis=1)
    u[:] = _inverse_haar(low, high, axis=0)  # cut to whole levels, as the method does
    return np.asarray(cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB), np.uint8)


def to_yuv(rgb: Frame) -> NDArray[np.uint8]:
    """8-bit Y, U and V, (H, W, 3): BT.601 luma, and colour differences scaled as in analogue PAL."""
    import cv2

    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV), np.uint8)


def marked_part(yuv: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The view of U, of YUV (H, W, 3), that is marked: an odd edge is not."""
    height, width = (side - side % 4 for side in yuv.shape[:2])
    return yuv[:height, :width, 1]


def blocks_of(low_pass: NDArray[np.float64]) -> NDArray[np.float64]:
    """The whole blocks of the low-pass band (h, w), in reading order, as a view (rows, columns, BLOCK, BLOCK)."""
    rows, columns = (side // BLOCK for side in low_pass.shape)
    whole = low_pass[: rows * BLOCK, : columns * BLOCK]
    return rearrange(whole, "(rows h) (columns w) -> rows columns h w", h=BLOCK, w=BLOCK)


def _write_message(low_pass: NDArray[np.float64]) -> None:
    """Write MESSAGE_BITS, again and again, into the blocks of the low-pass band (h, w), in place."""
    view = blocks_of(low_pass)
    blocks = rearrange(view, "rows columns h w -> (rows columns) (h w)")  # a copy
    bits = np.resize(MESSAGE_BITS, len(blocks))

    largest = 1 + blocks[:, 1:].argmax(axis=1, keepdims=True)  # U is never negative, nor are its sums
    values = np.take_along_axis(blocks, largest, axis=1)
    np.put_along_axis(blocks, largest, (values // STEP + 0.25 + 0.5 * bits[:, None]) * STEP, axis=1)

    view[:] = rearrange(blocks, "(rows columns) (h w) -> rows columns h w", rows=len(view), h=BLOCK)


def haar(x: Array, axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One level of the orthonormal Haar wavelet along an axis of even length: low-pass and high-pass halves."""
    even, odd = np.moveaxis(x, axis, 0)[0::2] * np.sqrt(0.5), np.moveaxis(x, axis, 0)[1::2] * np.sqrt(0.5)
    return np.moveaxis(even + odd, 0, axis), np.moveaxis(even - odd, 0, axis)


def _inverse_haar(low: NDArray[np.float64], high: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """The array whose Haar halves these are."""
    low, high = low * np.sqrt(0.5), high * np.sqrt(0.5)
    pairs = np.stack([low + high, low - high], axis=axis + 1)
    return pairs.reshape(*low.shape[:axis], -1, *low.shape[axis + 1 :])
