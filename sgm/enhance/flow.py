"""The frames between two frames, by optical flow: without weights, and never far worse than fading one into the other.

The flow is OpenCV's DIS (Kroeger et al. 2016, arXiv:1603.03590) at half the size, from each frame to the other. What
passes through a pixel at the time t is known only approximately: either flow may be wrong there, or say nothing since
what is seen in one frame is hidden in the other. So three motions are tried at each pixel, those of both flows and
none at all, and count by how alike the two frames are where they lead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]  # (H, W, 3), RGB
Plane = NDArray[np.float32]  # (h, w)
Flow = NDArray[np.float32]  # (h, w, 2), in pixels, x then y

SCALE = 2  # from the frame's size to that of the flow
MIN_SIDE, MAX_ASPECT = 16, 8  # what DIS copes with
NUM_PROJECTIONS = 2  # fixed-point steps; more changed nothing
WINDOW = 5  # pixels at the flow's size over which likeness is averaged
TOLERANCE = 4.0  # levels of 255: a motion whose likeness is worse by this counts 1/e as much
LOST_WINDOW, LOST = 15, 20.0  # where over that many pixels no motion leads to a likeness within 20 to 40 levels, fade
HIDDEN = 1e-3  # how much a frame counts where the motion leads out of it


class Way(NamedTuple):
    """One motion through each pixel of the frame to be made, from the first frame to the second, and what it's worth.

    first_share: how much of it is taken from the first frame, the rest from the second one.
    """

    flow: Flow
    unlikeness: Plane
    first_share: Plane


@dataclass(frozen=True)
class Motion:
    """What moves where from one frame to the next: the flow there and back, at the size of the small frames."""

    first: Frame
    second: Frame
    small: tuple[Frame, Frame]
    there: Flow
    back: Flow

    @classmethod
    def between(cls, first: Frame, second: Frame) -> Motion:
        """Estimate the motion between two frames of the same size, uint8 (H, W, 3) RGB."""
        import cv2

        small = _halved(first), _halved(second)
        grey = [_padded(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)) for frame in small]
        estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        estimator.setFinestScale(0)  # the frames are halved already
        height, width = small[0].shape[:2]
        there, back = (estimator.calc(*pair, None)[:height, :width] for pair in (grey, grey[::-1]))
        return cls(first, second, small, there, back)

    def frame_at(self, time: float) -> Frame:
        """The frame at a time in (0, 1) between the two; across a cut the nearer of them."""
        if self.is_cut:
            return self.first if time < 0.5 else self.second
        ways = [self._way(flow, time) for flow in self._flows_at(time)]
        made = np.zeros(self.first.shape, np.float32)
        for way, weight in zip(ways, _weights(ways), strict=True):
            self._add(made, way, weight, time)
        return np.clip(made + 0.5, 0, 255).astype(np.uint8)
