"""Motion in a clip, by optical flow, and flicker: what changes from frame to frame without having moved.

The flow is that of the iterative Lucas-Kanade method in scikit-image. Its wide Gaussian window averages out noise, and
it measures displacements of 0.1 % to 5 % of the width to within a quarter. With more warps it would sometimes run away
along stripes, where the picture doesn't show how far they have moved. OpenCV's DIS flow
takes a few percent of the time, but there it found 6 to 48 times the true motion, whatever its preset and smoothness.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .likeness import Pictures

WINDOW_RADIUS, NUM_WARPS = 10, 3  # pixels; refinements on each level of the pyramid
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue: ITU-R BT.601


def optical_flow(frames: Pictures) -> NDArray[np.float32]:
    """Where each pixel goes in the next frame: (T - 1, 2, H, W), rows then columns, in pixels; frames (T, H, W, 3)."""
    from skimage.registration import optical_flow_ilk

    def flow(now: NDArray[np.float32], following: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = optical_flow_ilk(
            now, following, radius=WINDOW_RADIUS, num_warp=NUM_WARPS, gaussian=True, dtype=np.float32
        )
        return found

    return np.stack([flow(now, following) for now, following in pairwise(frames @ LUMINANCE)])


def flow_percent(flow: NDArray[np.float32]) -> float:
    """Mean length of the flow (T - 1, 2, H, W) over a frame, in percent of its width; the median of the frames'."""
    lengths = np.hypot(flow[:, 0], flow[:, 1]).mean(axis=(1, 2))
    return float(np.median(lengths) / flow.shape[3] * 100)


def flicker_levels(frames: Pictures, flow: NDArray[np.float32]) -> float:
    """Mean absolute difference between each frame and the next one with its motion undone, in levels of 255.

    The warping error of Lai et al. 2018 (arXiv:1808.00449), but over every pixel that stays inside the picture,
    occluded ones included. Resampling and occlusion alone cause about one level, so compare it with that of true clips.
    """
    return float(np.mean([_unexplained(*pair, way) for pair, way in zip(pairwise(frames), flow, strict=True)]) * 255)


def _unexplained(now: Pictures, following: Pictures, flow: NDArray[np.float32]) -> float:
    from scipy.ndimage import map_coordinates

    rows, columns = places = np.indices(now.shape[:2], dtype=np.float32) + flow
    inside = (rows >= 0) & (rows <= now.shape[0] - 1) & (columns >= 0) & (columns <= now.shape[1] - 1)
    undone = np.stack([map_coordinates(channel, places, mode="nearest") for channel in np.moveaxis(following, 2, 0)], 2)
    return float(np.abs(undone - now)[inside].mean())
