"""Smooth playback: a clip at another frame rate, with the frames that it lacks made from their neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from .flow import Motion

Frames = NDArray[np.uint8]  # (n, H, W, 3), RGB

NEAREST = Fraction(1, 1000)  # of the time from frame to frame: what is as near as that to a frame is the frame


def num_interpolated(num_frames: int, fps_in: float, fps_out: float) -> int:
    """How many frames `interpolate` makes of this many: those that fill the same time, rounded, at least one."""
    return max(1, int(num_frames * Fraction(fps_out) / Fraction(fps_in) + Fraction(1, 2)))


def interpolate(
    chunks: Iterable[Frames], fps_in: float, fps_out: float, num_frames: int, *, loop: bool = False
) -> Iterator[Frames]:
    """A clip of `num_frames` at another rate, any above 0: `num_interpolated` frames, one by one, (1, H, W, 3).

    chunks: the clip in pieces of any length, uint8 (n, H, W, 3) RGB. They are read as they are needed: two frames and
    what is made of them are held at a time, however long the clip is.
    loop: whether the clip ends where it began, as an orbit does. Then the first frame follows the last one; otherwise
    the last one stays until the clip ends.

    Frame k shows the time k / fps_out. A time that has a frame gets that frame, unchanged; another one gets a frame
    made by following the motion, or, across a cut, the nearest frame.
    """
    assert num_frames > 0, "a clip has at least one frame"
    step = Fraction(fps_in) / Fraction(fps_out)  # from one frame to the next, in frames of the given clip
    positions = (k * step for k in range(num_interpolated(num_frames, fps_in, fps_out)))
    position = next(positions, None)
    for number, (frame, following) in enumerate(pairwise(_with_end(chunks, num_frames, loop))):
        motion = None
        while position is not None and position < number + 1:
            time = position - number
            if time <= NEAREST or following is frame:
                yield frame[None]
            elif time >= 1 - NEAREST:
                yield following[None]
            else:
                motion = motion or Motion.between(frame, following)
                yield motion.frame_at(float(time))[None]
            position = next(positions, None)


def _with_end(chunks: Iterable[Frames], num_frames: int, loop: bool) -> Iterator[NDArray[np.uint8]]:
    """The frames, all of them read, and what is seen when they are over."""
    frames = chain.from_iterable(chunks)
    first = last = next(frames)
    yield first
    count = 1
    for last in frames:
        count += 1
        yield last
    assert count == num_frames, f"the clip has {count} frames, not {num_frames}"
    yield first if loop else last
