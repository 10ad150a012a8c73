"""The order in which frames are shown: forwards, then backwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]  # (n, H, W, 3), RGB

HELD_BYTES = 256 * 1024**2  # 150 frames of 1024x576; what is more goes into a file


def num_pingpong(num_frames: int) -> int:
    """How many frames `pingpong` makes of this many."""
    return max(num_frames, 2 * num_frames - 2)


def pingpong(chunks: Iterable[Frames]) -> Iterator[Frames]:
    """A clip forwards, then backwards to its second frame, so that it repeats without any frame shown twice in a row.

    chunks: the clip in pieces of any length, uint8 (n, H, W, 3) RGB; the way back comes one by one, (1, H, W, 3).
    Frames for the way back that are more than `HELD_BYTES` wait in the system's folder for temporary files (TMPDIR), in
    a file without a name as large as they are (1.8 MB for 1024x576), which is gone when the clip ends, however it does.
    Raises OSError where they don't fit.
    """
    with tempfile.SpooledTemporaryFile(HELD_BYTES) as kept:
        shape, count = (0, 0, 0), 0
        for chunk in chunks:
            for frame in chunk:
                kept.write(np.ascontiguousarray(frame).data)
                shape = frame.shape
                count += 1
            yield chunk
        size = int(np.prod(shape))
        for number in range(count - 2, 0, -1):
            kept.seek(number * size)
            yield np.frombuffer(kept.read(size), np.uint8).reshape(1, *shape)
