"""The invisible watermark that says a clip was generated.

It is the `dwtDct` method of the invisible-watermark package (github.com/ShieldMnt/invisible-watermark), whose decoder
reads it back from 8-bit BGR frames. In the U channel of 8-bit YUV, one level of the Haar wavelet halves each side.
Every 4x4 block of the low-pass band carries one bit of the message, block after block in reading order, the message
starting again after its last bit. The bit is written into the block's largest coefficient, its first one excepted, by
moving it to a quarter (0) or three quarters (1) of the quantisation step that it lies in.

Two of the method's habits are kept because marked frames would differ without them: the wavelet's two mixed bands
change places on the way back, and U and V are cut to 8 bits, which dulls the purest reds a little. The decoder takes a
vote over all blocks of a bit. Where the U of a whole frame is nearly even, some votes are close and a bit may be lost.
"""

import numpy as np
from numpy.typing import NDArray

MESSAGE = 0xB3EC907BB19E
MESSAGE_BITS = np.array([MESSAGE >> shift & 1 for shift in range(47, -1, -1)])  # the most significant bit first

MIN_PIXELS = 256 * 256  # the decoder refuses smaller frames
STEP = 36  # quantisation step of a low-pass coefficient: twice as many levels of U
BLOCK = 4  # coefficients along a block's side, so 8 pixels

Array = NDArray[np.generic]


def can_watermark(height: int, width: int) -> bool:
    """Whether frames of this size are large enough to carry the watermark."""
    return height * width >= MIN_PIXELS


def embed_watermark(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mark every frame; frames too small to carry the message come back as they are.

    frames: uint8 (T, H, W, 3), RGB. The result is a new array of the same shape, at about 40 dB to the original.
    """
    assert frames.dtype == np.uint8, f"frames must be uint8, not {frames.dtype}"
    assert frames.ndim == 4, f"frames must be (T, H, W, 3), not {frames.shape}"
    assert frames.shape[3] == 3, f"frames must be (T, H, W, 3), not {frames.shape}"
    if not can_watermark(*frames.shape[1:3]):
        return frames.copy()
    return np.stack([_embed_in_frame(frame) for frame in frames])


def _embed_in_frame(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    y, u, v = _rgb_to_yuv(rgb)
    height, width = (side - side % 4 for side in u.shape)  # an odd edge stays unmarked
    low, high = _haar(u[:height, :width], axis=0)
    (low_low, low_high), (high_low, high_high) = _haar(low, axis=1), _haar(high, axis=1)
    low_low = _write_message(low_low)
    low, high = _inverse_haar(low_low, high_low, axis=1), _inverse_haar(low_high, high_high, axis=1)
    u[:height, :width] = _inverse_haar(low, high, axis=0)  # cut to whole levels, as the method does
    return _yuv_to_rgb(y, u, v)


def _write_message(coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Write MESSAGE_BITS, again and again, into the whole blocks of the low-pass band (height, width)."""
    rows, columns = (side // BLOCK for side in coefficients.shape)
    marked = coefficients.copy()
    whole = marked[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)  # a view
    blocks = whole.swapaxes(1, 2).reshape(rows * columns, BLOCK * BLOCK)  # a copy
    bits = np.resize(MESSAGE_BITS, rows * columns)

    largest = 1 + blocks[:, 1:].argmax(axis=1, keepdims=True)  # U is never negative, nor are its sums
    values = np.take_along_axis(blocks, largest, axis=1)
    values = (values // STEP + 0.25 + 0.5 * bits[:, None]) * STEP
    np.put_along_axis(blocks, largest, values, axis=1)

    whole[:] = blocks.reshape(rows, columns, BLOCK, BLOCK).swapaxes(1, 2)
    return marked


def _haar(x: Array, axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One level of the orthonormal Haar wavelet along an axis of even length: low-pass and high-pass halves."""
    even, odd = np.moveaxis(x, axis, 0)[0::2] * np.sqrt(0.5), np.moveaxis(x, axis, 0)[1::2] * np.sqrt(0.5)
    return np.moveaxis(even + odd, 0, axis), np.moveaxis(even - odd, 0, axis)


def _inverse_haar(low: NDArray[np.float64], high: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """The array whose Haar halves these are."""
    low, high = low * np.sqrt(0.5), high * np.sqrt(0.5)
    pairs = np.stack([low + high, low - high], axis=axis + 1)
    return pairs.reshape(*low.shape[:axis], -1, *low.shape[axis + 1 :])


# BT.601 luma, and colour differences scaled as in analogue PAL, in fixed point: the same levels on every machine.
_FIXED_POINT_BITS = 14


def _rgb_to_yuv(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """8-bit RGB (H, W, 3) to Y, U and V (H, W), each 0 to 255, U and V around 128."""
    r, g, b = np.moveaxis(rgb.astype(np.int32), -1, 0)
    y = _fixed_sum((0.299, r), (0.587, g), (0.114, b))
    u = _fixed_sum((0.492, b - y)) + 128
    v = _fixed_sum((0.877, r - y)) + 128
    return y, np.clip(u, 0, 255), np.clip(v, 0, 255)


def _yuv_to_rgb(y: NDArray[np.int32], u: NDArray[np.int32], v: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The inverse of `_rgb_to_yuv`, to within the levels lost by rounding; (H, W) thrice to (H, W, 3)."""
    u, v = u - 128, v - 128
    r = y + _fixed_sum((1.140, v))
    g = y + _fixed_sum((-0.395, u), (-0.581, v))
    b = y + _fixed_sum((2.032, u))
    return np.clip(np.stack([r, g, b], axis=-1), 0, 255).astype(np.uint8)


def _fixed_sum(*terms: tuple[float, NDArray[np.int32]]) -> NDArray[np.int32]:
    """The sum of weight * channel in fixed point, rounded half up to whole levels."""
    one, half = 1 << _FIXED_POINT_BITS, 1 << (_FIXED_POINT_BITS - 1)
    total = np.full_like(terms[0][1], half)
    for weight, channel in terms:
        total += round(weight * one) * channel
    return total >> _FIXED_POINT_BITS
