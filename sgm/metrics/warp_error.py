"""The motion-aware warp error of StreamingT2V (Henschel et al. 2024, arXiv:2403.14773): flicker, weighed by motion.

A clip that hardly moves has little to warp and so a small error: dividing by the motion's length makes still clips no
better than moving ones. The published numbers are of frames resized to 720x720 and of the flow of RAFT (large), which
is for the caller to find; with another flow the values are comparable among themselves only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .likeness import Pictures

MOTION_WEIGHT = 9.5  # brings errors of levels of 255, squared, and flows in pixels to one scale


@dataclass(frozen=True)
class WarpError:
    """value: the mean over the pairs of neighbouring frames that move; None where none does, as it would be 0/0."""

    value: float | None
    moving_pairs: int
    still_pairs: int


def motion_aware_warp_error(frames: Pictures, flow: NDArray[np.float32]) -> WarpError:
    """The error of a clip (T, H, W, 3) in [0, 1], by where each pixel goes in the next frame.

    flow: (T - 1, 2, H, W), rows then columns, in pixels, as `sgm.metrics.motion.optical_flow` gives it.
    """
    errors = []
    for (now, following), of_pair in zip(pairwise(frames), flow, strict=True):
        length = float(np.hypot(of_pair[0], of_pair[1], dtype=np.float64).mean())
        if length > 0:
            errors.append(warp_error(now, following, of_pair) / (MOTION_WEIGHT * length))
    value = float(np.mean(errors)) if errors else None
    return WarpError(value, moving_pairs=len(errors), still_pairs=len(flow) - len(errors))


def warp_error(now: Pictures, following: Pictures, flow: NDArray[np.float32]) -> float:
    """Mean squared difference, in levels of 255, of a frame (H, W, 3) moved along its flow and the following frame.

    Only the pixels that something moves to count; 0 where everything leaves the picture.
    """
    moved, known = splat(now, flow)
    difference = 255 * (moved[known].astype(np.float64) - following[known])
    return float(np.square(difference).mean()) if known.any() else 0.0


def splat(frame: Pictures, flow: NDArray[np.float32]) -> tuple[Pictures, NDArray[np.bool_]]:
    """A frame (H, W, 3) with each pixel moved to the nearest place that the flow (2, H, W) leads to.

    Of pixels that meet, the last one stays, in the order of rows; where none arrives it is black, and False in the
    second array (H, W).
    """
    height, width = frame.shape[:2]
    rows, columns = np.rint(np.indices((height, width)) + flow).astype(np.int64)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    last = np.full(height * width, -1)
    # The last one is the one with the highest number: numpy doesn't promise an order of assignment.
    np.maximum.at(last, (rows * width + columns)[inside], np.flatnonzero(inside))
    known = (last >= 0).reshape(height, width)
    moved = np.zeros_like(frame)
    moved[known] = frame.reshape(-1, 3)[last[last >= 0]]
    return moved, known
