"""Do clips do what their prompts say? The dominant motion of a clip, by its flow, against the prompted one.

An affine motion is fitted to the flow of each pair of frames, in several rounds that leave out what doesn't follow it,
such as a subject that walks on its own. Its translation, divergence and rotation, each as the mean length by which it
moves the picture, say whether the camera pans, zooms or rolls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.captions import CAMERA_MOTIONS, OPPOSITES, Script, caption
from ..data.prompted_scenes import mean_radius, prompted_scene
from ..metrics.likeness import Pictures
from ..metrics.motion import LUMINANCE
from .generators import unit_range

STILL_PERCENT = 0.5  # of the width over the clip: what moves less, holds still
FRAMES_APART = 4  # of those that are compared: so far apart, small motions are measured better
ROUNDS, KEPT = 6, 0.7  # of the fit, and the share of the picture that each round keeps
MOTIONS = tuple(CAMERA_MOTIONS)

Prompted = Callable[[Pictures, str, int], Pictures]  # a picture (H, W, 3), a prompt ("" for none) and a seed -> a clip


@dataclass(frozen=True)
class CameraMotion:
    """A clip's camera motion over its whole length, in percent of the width by which it moves the picture.

    right, down: of the camera; closer: the mean over the picture; clockwise: of the camera, likewise.
    """

    right: float
    down: float
    closer: float
    clockwise: float

    @property
    def dominant(self) -> str:
        """The name of the strongest of them: one of MOTIONS."""
        named = {
            ("right", "left"): self.right,
            ("down", "up"): self.down,
            ("in", "out"): self.closer,
            ("clockwise", "anticlockwise"): self.clockwise,
        }
        (forward, backward), amount = max(named.items(), key=lambda item: abs(item[1]))
        if abs(amount) < STILL_PERCENT:
            return "still"
        return forward if amount > 0 else backward

    def along(self, motion: str) -> float:
        """How far it goes the way of a motion, in percent; negative if it goes the opposite way."""
        amounts = {"right": self.right, "down": self.down, "in": self.closer, "clockwise": self.clockwise}
        return amounts[motion] if motion in amounts else -amounts[OPPOSITES[motion]]


def measured_motion(frames: Pictures) -> CameraMotion:
    """The camera's motion in a clip (T, H, W, 3) in [0, 1]."""
    grey = [_grey(frame) for frame in frames]
    height, width = grey[0].shape
    total = np.zeros((2, 3))
    for now, following in pairwise(_apart(grey)):
        total += _affine(_flow(now, following))
    (x, xx, xy), (y, yx, yy) = total
    radius = mean_radius(height / width)
    right, down = -x, -y  # the picture moves against the camera
    closer, clockwise = (xx + yy) / 2 * radius, -(yx - xy) / 2 * radius
    return CameraMotion(*(float(100 * each) for each in (right, down, closer, clockwise)))


def _grey(frame: Pictures) -> NDArray[np.uint8]:
    grey: NDArray[np.uint8] = (frame @ LUMINANCE * 255).round().astype(np.uint8)
    return grey


def _apart(grey: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Every fourth frame, and the last."""
    last = len(grey) - 1
    return [grey[number] for number in sorted({*range(0, last, FRAMES_APART), last})]


def _flow(now: NDArray[np.uint8], following: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Where each of a grid of points goes, (n, 4): x, y, dx, dy in widths from the middle; points with texture only."""
    import cv2

    height, width = now.shape
    points = cv2.goodFeaturesToTrack(now, maxCorners=600, qualityLevel=0.003, minDistance=5)
    if points is None:
        return np.zeros((0, 4))
    track: Any = partial(cv2.calcOpticalFlowPyrLK, winSize=(21, 21), maxLevel=3)
    there, found, _ = track(now, following, points, None)
    back, found_back, _ = track(following, now, there, None)
    good = (found & found_back)[:, 0].astype(bool) & (np.abs(back - points).max(axis=(1, 2)) < 0.5)
    start, end = points[good, 0].astype(float), there[good, 0].astype(float)
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.concatenate([start - middle, end - start], axis=1) / width


def _affine(flow: NDArray[np.float64]) -> NDArray[np.float64]:
    """The motion (2, 3), its offset and slopes in x and y, that most of a flow (n, 4) follows; 0 if it is short."""
    if len(flow) < 8:
        return np.zeros((2, 3))
    places = np.concatenate([np.ones((len(flow), 1)), flow[:, :2]], axis=1)
    # A similarity: dx = a + s x - r y, dy = b + s y + r x.
    zero, one = np.zeros(len(flow)), np.ones(len(flow))
    x, y = flow[:, 0], flow[:, 1]
    rows = np.concatenate([np.stack([one, zero, x, -y], 1), np.stack([zero, one, y, x], 1)])
    aims = np.concatenate([flow[:, 2], flow[:, 3]])
    weights = np.ones(len(flow))
    for _ in range(ROUNDS):
        both = np.tile(weights, 2)
        (a, b, s, r), *_ = np.linalg.lstsq(rows * both[:, None], aims * both, rcond=None)
        motion = np.array([[a, s, -r], [b, r, s]])
        misses = np.linalg.norm(flow[:, 2:] - places @ motion.T, axis=1)
        weights = (misses <= np.quantile(misses, KEPT)).astype(float)
    return motion


@dataclass(frozen=True)
class Obedience:
    """What prompts achieve, in shares of the clips.

    obeyed: whose dominant motion is the prompted one, over all and of each motion. opposite: of the pairs of clips of
    one picture and seed and opposite prompts, whose flows are opposite. spread: how many of the motions the clips of
    one picture show for different seeds and no prompt, on average, of all that there are.
    """

    obeyed: float
    of_each: Mapping[str, float]
    opposite: float
    spread: float


def evaluate_prompts(
    make: Prompted,
    pictures: Sequence[Pictures],
    wordings: int = 1,
    seeds: int = 9,
    track: Callable[[Sequence[tuple[int, str, int]]], Iterable[tuple[int, str, int]]] = iter,
) -> Obedience:
    """Measure a maker of clips on pictures, with held-out wordings: `wordings` for each picture and motion."""
    found: dict[tuple[int, str, int], CameraMotion] = {}
    jobs = [(p, motion, k) for p in range(len(pictures)) for motion in MOTIONS for k in range(wordings)]
    for number, motion, k in track(jobs):
        rng = np.random.Generator(np.random.PCG64([number, MOTIONS.index(motion), k]))
        text = caption(rng, Script(camera=motion), held_out=True)
        found[number, motion, k] = measured_motion(make(pictures[number], text, number))
    of_each = {
        motion: float(np.mean([found[job].dominant == motion for job in jobs if job[1] == motion]))
        for motion in MOTIONS
    }
    pairs = [
        found[p, one, k].along(one) > 0 and found[p, other, k].along(one) < 0
        for p, one, k in jobs
        if (other := OPPOSITES.get(one)) is not None
    ]
    shown = [
        {measured_motion(make(picture, "", seed)).dominant for seed in range(seeds)} for picture in pictures if seeds
    ]
    spread = float(np.mean([len(motions) / len(MOTIONS) for motions in shown])) if shown else float("nan")
    return Obedience(float(np.mean(list(of_each.values()))), of_each, float(np.mean(pairs)), spread)


def true_clip(seed: int, script: Script, width: int, height: int, num_frames: int) -> Pictures:
    """A clip of a held-out scene that follows the script, at the default strength and rate."""
    scene = prompted_scene(seed, np.arange(num_frames), width, height, 127, 6, held_out=True, script=script)
    return unit_range(scene.frames)
