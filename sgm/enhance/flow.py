"""The frames between two frames, by optical flow: no weights, and where it finds no motion, one fades into the other.

The flow is OpenCV's DIS (Kroeger et al. 2016, arXiv:1603.03590) from each frame to the other. What passes through a
pixel between them follows from either, unless that flow is wrong or what it starts from is hidden in the other frame.
So three motions are tried at each pixel, those of both flows and none at all, and each counts by how alike the frames
are where it leads. Numbers of pixels here are those of the frames at half their size, where all this is decided; only
the colours are taken from the frames at full size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]  # (H, W, 3), RGB
Floats = NDArray[np.float32]  # a flow is (h, w, 2), x then y; a plane (h, w)

MIN_SIDE, MAX_ASPECT = 16, 8  # of what DIS accepts
NUM_PROJECTIONS = 2  # more changed nothing
LIKENESS_WINDOW = 5  # pixels over which the difference between the frames is averaged
TOLERANCE = 4.0  # levels of 255: a motion with that much more difference than the best one counts 1/e as much
LOST_WINDOW, LOST = 15, 20.0  # no motion is followed where over so many pixels the best one differs by twice so much
COMES_BACK, COMES_BACK_OF_LENGTH = 1.0, 0.05  # what comes back misses by less: pixels, and parts of the flow's length
DETAIL_WINDOW = 15  # pixels: what is smaller is detail
CUT_FOUND = 0.2  # across a cut less of the detail is found again
PLAIN = 2.0  # levels of detail (standard deviation): a frame with less shows no scene
OUTSIDE = 1e-3  # how much a frame counts where the motion leads out of it


class Course(NamedTuple):
    """A motion through each pixel of the frame to be made, by its flow from the first frame to the second.

    difference: between the frames at its two ends, in levels of 255. first_share: how much of what it shows is from
    the first frame; the rest is from the second one.
    """

    flow: Floats
    difference: Floats
    first_share: Floats


@dataclass(frozen=True)
class Motion:
    """What moves from one frame to another, by the flows there and back between them at half their size.

    is_cut: whether nothing does, since they show different scenes.
    """

    frames: tuple[Frame, Frame]
    small: tuple[Frame, Frame]
    flows: tuple[Floats, Floats]
    is_cut: bool

    @classmethod
    def between(cls, first: Frame, second: Frame) -> Motion:
        """The motion between two frames of one size, uint8 (H, W, 3) RGB."""
        small = _halved(first), _halved(second)
        greys = _grey(small[0]), _grey(small[1])
        # At every pixel: the pictures are halved already.
        flows = dense_flow(*greys, finest_scale=0), dense_flow(*greys[::-1], finest_scale=0)
        return cls((first, second), small, flows, _is_cut(greys, flows))

    def frame_at(self, time: float) -> Frame:
        """The frame at a time in (0, 1) between the two; across a cut the nearer one itself."""
        if self.is_cut:
            return self.frames[0] if time <= 0.5 else self.frames[1]
        forwards, backwards = self.flows
        flows = _projected(forwards, time), -_projected(backwards, 1 - time), np.zeros_like(forwards)
        courses = [_course(flow, self.small, time) for flow in flows]
        made = np.zeros(self.frames[0].shape, np.float32)
        for course, weight in zip(courses, _weights(courses), strict=True):
            shares = weight * course.first_share, weight * (1 - course.first_share)
            for frame, share, duration in zip(self.frames, shares, (-time, 1 - time), strict=True):
                made += _moved(frame, course.flow, duration) * _at_full_size(share, frame)[..., None]
        return np.clip(made + 0.5, 0, 255).astype(np.uint8)


def dense_flow(first: NDArray[np.uint8], second: NDArray[np.uint8], *, finest_scale: int = 1) -> Floats:
    """Where each pixel of a grey picture (h, w) goes in another, (h, w, 2): x then y, by dense inverse search.

    finest_scale: how often the pictures are halved where it is found most finely. No first guess is given, which would
    mislead it where a subject moves.
    """
    import cv2

    search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(finest_scale)
    height, width = first.shape
    least = max(MIN_SIDE, -(-max(first.shape) // MAX_ASPECT))
    padding = (0, max(0, least - height)), (0, max(0, least - width))
    pictures = np.pad(first, padding, mode="edge"), np.pad(second, padding, mode="edge")
    flow = np.asarray(search.calc(*pictures, None), np.float32)
    return flow[:height, :width]


def _halved(frame: Frame) -> Frame:
    import cv2

    height, width = frame.shape[:2]
    size = (width + 1) // 2, (height + 1) // 2
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _grey(frame: Frame) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)


def _projected(flow: Floats, time: float) -> Floats:
    """The flow of what passes through each pixel at that time, rather than of what starts there.

    What is at x started at x - time * flow, with the flow of that place: solved by fixed-point iteration.
    """
    passing = flow
    for _ in range(NUM_PROJECTIONS):
        passing = _sampled(flow, _places(passing, -time))
    return passing


def _course(flow: Floats, small: tuple[Frame, Frame], time: float) -> Course:
    import cv2

    start, end = _places(flow, -time), _places(flow, 1 - time)
    difference = cv2.absdiff(_sampled(small[0], start), _sampled(small[1], end)).max(axis=2).astype(np.float32)
    first = (1 - time) * np.where(_inside(start), 1, OUTSIDE)
    second = time * np.where(_inside(end), 1, OUTSIDE)
    return Course(flow, cv2.blur(difference, (LIKENESS_WINDOW,) * 2), (first / (first + second)).astype(np.float32))


def _weights(courses: list[Course]) -> Floats:
    """How much each course counts at each pixel, (courses, h, w), adding up to 1; the last course stands still."""
    import cv2

    differences = np.stack([course.difference for course in courses])
    least = differences.min(axis=0)
    weights = np.exp((least - differences) / TOLERANCE)
    weights /= weights.sum(axis=0)
    lost = np.clip(cv2.blur(least, (LOST_WINDOW,) * 2) / LOST - 1, 0, 1)
    weights *= 1 - lost
    weights[-1] += lost
    return np.asarray(weights, np.float32)


def _moved(frame: Frame, flow: Floats, duration: float) -> Frame:
    """The frame, sampled where the flow leads in that part of the time; its colours interpolated by cubics."""
    import cv2

    if not flow.any():
        return frame
    scale = np.array([full / small for full, small in zip(frame.shape[1::-1], flow.shape[1::-1], strict=True)])
    places = _places(_at_full_size(flow, frame) * scale.astype(np.float32), duration)
    moved = cv2.remap(frame, *places, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


def _is_cut(greys: tuple[NDArray[np.uint8], NDArray[np.uint8]], flows: tuple[Floats, Floats]) -> bool:
    """Whether the two show different scenes: hardly any detail of one is found in the other along the flows.

    Found is what comes back when it follows one flow there and the other one back, and correlates with what is there,
    however bright. In pairs of frames of films, 6 to 30 a second, fast pans and flashes among them, that is 0.25 or
    more; across their cuts it is at most 0.07, and between any two of ten photographs 0.14. A plain frame is no scene:
    a film fades into black or white and out of it.
    """
    first, second = _detail(greys[0]), _detail(greys[1])
    if min(float(first.std()), float(second.std())) < PLAIN:
        return False
    forwards, backwards = flows
    found = _found(first, second, forwards, backwards) + _found(second, first, backwards, forwards)
    return found / 2 < CUT_FOUND


def _detail(grey: NDArray[np.uint8]) -> Floats:
    import cv2

    values = grey.astype(np.float32)
    return values - np.asarray(cv2.blur(values, (DETAIL_WINDOW,) * 2), np.float32)


def _found(detail: Floats, of_other: Floats, there: Floats, back: Floats) -> float:
    """How much of a picture's detail is in the other one along the flow, from about 0 to 1."""
    arrived = _places(there, 1)
    missed = np.linalg.norm(there + _sampled(back, arrived), axis=2)
    comes_back = missed < COMES_BACK + COMES_BACK_OF_LENGTH * np.linalg.norm(there, axis=2)
    there_detail = _sampled(of_other, arrived)
    alike = (detail * there_detail)[comes_back].sum()
    return float(alike / (np.linalg.norm(detail) * np.linalg.norm(there_detail) + 1))


def _places(flow: Floats, duration: float) -> tuple[Floats, Floats]:
    """Where each pixel gets in that part of the time from one frame to the other: x and y, each (h, w)."""
    height, width = flow.shape[:2]
    x = np.asarray(flow[..., 0] * duration + np.arange(width), np.float32)
    y = np.asarray(flow[..., 1] * duration + np.arange(height)[:, None], np.float32)
    return x, y


def _inside(places: tuple[Floats, Floats]) -> NDArray[np.bool_]:
    x, y = places
    height, width = x.shape
    return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)


def _sampled(values: NDArray[Any], places: tuple[Floats, Floats]) -> NDArray[Any]:
    """An array of pixels where the places are, its values interpolated linearly."""
    import cv2

    return np.asarray(cv2.remap(values, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _at_full_size(values: Floats, frame: Frame) -> Floats:
    import cv2

    return np.asarray(cv2.resize(values, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)
