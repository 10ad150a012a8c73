"""Following a picture through a clip: where each pixel of a frame lies in the picture that the clip starts from.

A flow is float32 (H, W, 2): what to add to a pixel's position (x, y), in pixels, to come to the same thing in another
picture. Pictures are float32 in levels of 255, grey ones (H, W).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .flow import dense_flow

Array = NDArray[np.float32]
Pixels = NDArray[np.uint8]

# All lengths are in pixels of a picture with about twice the clip's own sides, where a flow is best found.
DULLNESS = (1.0, 1.5, 2.0, 2.6, 3.3, 4.2)  # blurs that a clip may have in comparison with its picture
LEAST_BLUR = 1.0  # of frames, against their noise
MOST_PIXELS = 600_000  # of the followed picture, unless the clip has more
SHARP, FINEST_COPY = 0.1, 2.0  # blurs: that which is none, and the least that is applied to a smaller copy
BROAD = 8.0  # changes of tone are broader, what is followed is finer
NEAR, FAR = 4.0, 20.0  # how far a flow that stands out from its surroundings, and one that doesn't, is averaged
STANDS_OUT = 0.4  # by how much flow differs from its surroundings half for noise and half for a reason
APART = 1.2  # by how much the second motion differs from the first
STEP = 4  # flows vary slowly, so they are smoothed on every fourth pixel
LITTLE = 0.2  # texture's weight, of 1, under which flow follows its surroundings
FIT_ROUNDS, SAMPLED = 4, 0.5  # of least squares; how near to a sampled motion flow is that follows it
CLEAR, FEWEST = 0.05, 30  # texture's weight from which flow tells of a motion, and of how many pixels
WORTH_BENDING, WORTH_LEAVING = 1.3, 1.3  # by how much closer to a frame flow, and a second motion, must come to count
TEARS = 0.6  # by how much flow changes from pixel to pixel, beyond what it does everywhere, where it tears a picture
REACH = 5.0  # around a pixel, over which pictures are compared
LEAST_SHOWN = 0.02  # part of the frame that must lie in the picture for it to be followed
LOST = 0.35  # correlation between a frame and the picture under which they show something else


@dataclass(frozen=True)
class Sight:
    """How a frame sees the picture.

    flow: from the frame into the picture. step: from the frame into the one before. blur: how much duller the frame is,
    as the sigma of a Gaussian. All are in pixels of the followed picture. whole: (H, W), from 0, where the flow tears
    the picture, as at the edge of what moves, to 1.
    """

    flow: Array
    step: Array
    whole: Array
    blur: float


class Follower:
    """Follows a grey picture (H, W) through a clip of (width, height), frame by frame.

    Every frame is compared with the picture itself, seen as the frame before saw it, so errors don't add up. `size` is
    the (width, height) of the flows.
    """

    def __init__(self, picture: Array, clip_size: tuple[int, int]) -> None:
        enlarged = min(2.0, max(1.0, math.sqrt(MOST_PIXELS / math.prod(clip_size))))
        self.size = round(clip_size[0] * enlarged), round(clip_size[1] * enlarged)
        self._dulled = {sigma: blurred(resized(picture, self.size), sigma) for sigma in DULLNESS}
        self._frame: Array | None = None  # the last one that showed the picture, and how it saw that
        self._dullness = 0
        self._flow: Array = np.zeros((self.size[1], self.size[0], 2), np.float32)

    def follow(self, frame: Array) -> Sight | None:
        """How the next frame (h, w), of any size, sees the picture; None if it shows something else."""
        frame = blurred(resized(frame, self.size), LEAST_BLUR)
        fine = _fine(frame)
        flow, step = self._flow, np.zeros_like(self._flow)
        if self._frame is not None:
            step, _ = regular(dense_flow(_to_bytes(frame), _to_bytes(self._frame)), texture(frame))
            flow = chained(step, flow)
        near = DULLNESS[max(self._dullness - 1, 0) : self._dullness + 2] if self._frame is not None else DULLNESS
        views = {sigma: warped(self._dulled[sigma], flow) for sigma in near}
        sigma = min(views, key=lambda sigma: float(np.square(fine - _fine(views[sigma])).mean()))
        picture, view = self._dulled[sigma], views[sigma]
        weight = texture(view)
        flow = chained(regular(dense_flow(_to_bytes(frame), _to_bytes(view)), weight)[0], flow)
        flow = simplest(*regular(flow, weight), picture, fine)
        shown = inside(flow) == 1
        if shown.mean() < LEAST_SHOWN or _correlation(fine[shown], _fine(warped(picture, flow))[shown]) < LOST:
            return None
        self._frame, self._flow, self._dullness = frame, flow, DULLNESS.index(sigma)
        return Sight(flow, step, wholeness(flow), math.sqrt(sigma**2 - LEAST_BLUR**2))


def texture(picture: Array) -> Array:
    """How well a grey picture tells where it has moved, in each pixel from 0 to 1.

    From the lesser eigenvalue of the structure tensor (Shi and Tomasi 1994): an edge alone tells it only across.
    """
    import cv2

    right, down = (cv2.Sobel(picture, cv2.CV_32F, x, y, scale=1 / 8) for x, y in ((1, 0), (0, 1)))
    xx, yy, xy = (blurred(product, NEAR) for product in (right * right, down * down, right * down))
    lesser = (xx + yy) / 2 - np.sqrt(np.square((xx - yy) / 2) + np.square(xy))
    weight: Array = lesser / (lesser + 1)
    return weight


def regular(flow: Array, weight: Array) -> tuple[Array, list[Array]]:
    """A noisy flow made smooth, and the two affine motions that most of it follows: of a scene and a subject.

    weight: (H, W), how far each pixel's flow is to be believed. The smooth flow is the first motion and what of the
    difference from it is no chance: where there is hardly any weight, that motion.
    """
    height, width = weight.shape
    size = -(-width // STEP), -(-height // STEP)
    weights, places = resized(weight, size), resized(grid(height, width), size)
    flows = resized(flow * weight[..., None], size) / (weights[..., None] + np.float32(1e-6))
    first, off = affine_fit(flows, weights, places)
    second, _ = affine_fit(flows, weights * off, places)
    near, far = (_average(flows - first, weights, reach / STEP) for reach in (NEAR, FAR))
    differs = np.square(near - far).sum(2, keepdims=True)
    smooth = first + far + (near - far) * (differs / (differs + STANDS_OUT**2))
    smooth, first, second = (resized(few, (width, height), linear=True) for few in (smooth, first, second))
    return smooth, [first, second]


def affine_fit(flow: Array, weight: Array, places: Array) -> tuple[Array, Array]:
    """The affine motion, as a flow, that most of a flow follows, and where the flow is off it, from 0 to 1.

    What follows it is found by random sampling of turns, zooms and shifts, since a scene and a subject together would
    draw least squares to a motion that neither has; then least squares count what is off ever less.
    """
    import cv2

    positions, wanted, trusted = places.reshape(-1, 2), flow.reshape(-1, 2), weight.reshape(-1, 1)
    clear = trusted[:, 0] > CLEAR
    fit = None
    if clear.sum() > FEWEST:
        start, end = positions[clear], positions[clear] + wanted[clear]
        fit, _ = cv2.estimateAffinePartial2D(start, end, method=cv2.RANSAC, ransacReprojThreshold=SAMPLED)
    if fit is None:  # nothing tells of a motion
        return np.zeros_like(flow), np.zeros_like(weight)
    solution = fit.T[[2, 0, 1]] - np.array([[0, 0], [1, 0], [0, 1]])
    basis = np.concatenate([np.ones((len(positions), 1)), positions], 1)
    for _ in range(FIT_ROUNDS):
        off = np.square(wanted - basis @ solution).sum(1, keepdims=True)
        believed = trusted / np.square(1 + off / STANDS_OUT**2) + 1e-9
        scale = np.diag([1.0, 1 / len(flow), 1 / len(flow)]) / STEP  # to keep the equations well conditioned
        scaled = basis @ scale
        solution = scale @ np.linalg.solve(
            (scaled * believed).T @ scaled + 1e-9 * np.eye(3), (scaled * believed).T @ wanted
        )
    off = np.square(wanted - basis @ solution).sum(1)
    motion: Array = (basis @ solution).reshape(flow.shape).astype(np.float32)
    return motion, (off / (off + APART**2)).reshape(weight.shape).astype(np.float32)


def simplest(flow: Array, motions: list[Array], picture: Array, fine: Array) -> Array:
    """Of a few motions the one through which the picture is most like a frame's `fine` part, in each place.

    The flow itself counts only where it does clearly better: noise bends every flow, and hardly the motion of much.
    """
    costs = [WORTH_BENDING, 1.0, WORTH_LEAVING]
    errors = [blurred(np.square(fine - _fine(warped(picture, way))), REACH) for way in (flow, *motions)]
    noise = np.median(errors[0]) + 1
    odds = np.stack([(cost * error + noise) ** -8 for cost, error in zip(costs, errors, strict=True)])
    odds /= odds.sum(0)
    result: Array = sum(share[..., None] * way for share, way in zip(odds, (flow, *motions), strict=True))
    return result


def wholeness(flow: Array) -> Array:
    """Where a flow keeps what it shows in one piece: (H, W), 1, and 0 where it tears."""
    import cv2

    change: Array = np.zeros(flow.shape[:2], np.float32)
    for axis in (0, 1):
        slope = np.zeros_like(flow)
        slope[: -1 if axis == 0 else None, : -1 if axis == 1 else None] = np.diff(flow, axis=axis)
        slope -= np.median(slope[::STEP, ::STEP], axis=(0, 1))
        change += np.einsum("hwc,hwc->hw", slope, slope)
    widened = np.asarray(cv2.dilate(change, np.ones((5, 5), np.uint8)), np.float32)
    return blurred(1 / (1 + np.square(widened / TEARS**2)), 2.0)


def warped(picture: Array, flow: Array, *, sharp: bool = False) -> Array:
    """The picture (H, W, ...) seen through a flow that leads into it, mirrored beyond its edges."""
    import cv2

    way = cv2.INTER_LANCZOS4 if sharp else cv2.INTER_LINEAR
    x, y = cv2.split(flow + grid(*flow.shape[:2]))
    return np.asarray(cv2.remap(picture, x, y, way, borderMode=cv2.BORDER_REFLECT), np.float32)


def inside(flow: Array, margin: float = 1.0) -> Array:
    """Where a flow (H, W, 2) leads into a picture of its own size: 1, to 0 over `margin` pixels beyond its edges."""
    height, width = flow.shape[:2]
    x, y = np.moveaxis(flow + grid(height, width), 2, 0)
    least = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y))
    return (least / margin + 1).clip(0, 1)


def chained(first: Array, then: Array) -> Array:
    """The flow of going by one flow first, then by another."""
    return first + warped(then, first)


def grid(height: int, width: int) -> Array:
    """Each pixel's own position (height, width, 2)."""
    return np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), 2)


def blurred(picture: Array, sigma: float) -> Array:
    """The picture under a Gaussian of that many pixels; a wide one is applied to a smaller copy, which is as good."""
    import cv2

    if sigma < SHARP:
        return picture
    height, width = picture.shape[:2]
    if sigma >= 2 * FINEST_COPY and min(height, width) > 8 * sigma:
        half = resized(picture, (-(-width // 2), -(-height // 2)))
        return resized(blurred(half, sigma / 2), (width, height), linear=True)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)


def resized(picture: Array | Pixels, size: tuple[int, int], *, linear: bool = False) -> Array:
    """The picture in (width, height): bicubic or linear if that is larger, the mean of areas if it is smaller."""
    import cv2

    larger = cv2.INTER_LINEAR if linear else cv2.INTER_CUBIC
    way = larger if size[0] > picture.shape[1] else cv2.INTER_AREA
    return np.asarray(cv2.resize(picture, size, interpolation=way), np.float32)


def _average(values: Array, weight: Array, sigma: float) -> Array:
    """The values' local mean by weight; towards zero where there is hardly any."""
    total = blurred(values * weight[..., None], sigma)
    mean: Array = total / (blurred(weight, sigma)[..., None] + LITTLE)
    return mean


def _fine(picture: Array) -> Array:
    return picture - blurred(picture, BROAD)


def _correlation(first: Array, second: Array) -> float:
    return float((first * second).sum() / np.sqrt(np.square(first).sum() * np.square(second).sum() + 1))


def _to_bytes(grey: Array) -> Pixels:
    levels: Pixels = grey.round().clip(0, 255).astype(np.uint8)
    return levels
