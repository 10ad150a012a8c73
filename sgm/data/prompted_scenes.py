"""Clips whose motion is drawn at random, whatever the picture shows, and is said in a script that captions word.

A clip is a backdrop and at most one subject in front of it, flat pictures both. The unit of length is the frame's
width, the frame's middle is 0, y points downwards, and time is counted in frames from the first one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from .backdrops import random_backdrop
from .camera_moves import Motion, photograph_crop, soft_blob
from .captions import SPEEDS, Script, random_script
from .objects import HELD_OUT_SEED, object_kind, random_object, render_orbit

Array = NDArray[np.float32]
Rng = np.random.Generator

# A motion bucket of 127 moves the picture by 0.012 of its width per second, 2.6 % in 14 frames at 6 frames per second.
WIDTHS_PER_SECOND_PER_BUCKET = 0.012 / 127
MAX_TRAVEL = 0.45  # frame widths: what would move farther, in all, moves so far
SUBJECT_SPEED = 1.5  # of a subject, relative to the scene, in the picture's mean displacement
_WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}


@dataclass(frozen=True, eq=False)
class Picture:
    """A flat picture (3 or 4, h, w), in [0, 1], RGBA premultiplied, and its place: a centre and half of its extent.

    drift: how far it moves in the scene per frame, (x, y).
    """

    pixels: torch.Tensor
    half_width: float
    half_height: float
    centre: tuple[float, float] = (0.0, 0.0)
    drift: tuple[float, float] = (0.0, 0.0)

    def seen(self, motion: Motion, times: NDArray[np.intp], width: int, height: int) -> torch.Tensor:
        """What the camera sees of it at these times, (len(times), 3 or 4, height, width)."""
        transform = motion.frame_to_scene(int(times.max()) + 1)[times]
        for axis in (0, 1):
            transform[:, axis, 2] -= self.centre[axis] + self.drift[axis] * times
        transform[:, :, 0] /= 2  # torch's coordinates go from -1 to 1 across the frame and across the picture
        transform[:, :, 1] *= height / width / 2
        transform /= np.array([[self.half_width], [self.half_height]], np.float32)
        channels = len(self.pixels)
        grid = F.affine_grid(torch.from_numpy(transform), [len(times), channels, height, width], align_corners=False)
        padding = "zeros" if channels == 4 else "reflection"
        pixels = self.pixels.expand(len(times), -1, -1, -1)
        return F.grid_sample(pixels, grid, mode="bicubic", padding_mode=padding, align_corners=False)


@dataclass(frozen=True, eq=False)
class PromptedScene:
    """Frames (T, height, width, 3), RGB, of a scene, and what happens in it."""

    frames: NDArray[np.uint8]
    script: Script


def prompted_scene(
    seed: int,
    times: NDArray[np.intp],
    width: int,
    height: int,
    motion_bucket_id: float,
    fps_id: float,
    held_out: bool = False,
    script: Script | None = None,
) -> PromptedScene:
    """The frames of a scene at these times, of which the first should be 0, the picture that the clip starts from.

    What moves, moves the picture on average over its area by `WIDTHS_PER_SECOND_PER_BUCKET * motion_bucket_id` frame
    widths per second at plain speed, and by 1 / `fps_id` of that per frame.

    seed: any integer from 0. held_out: whether to show only content that is never trained on. script: what happens;
    drawn at random if None. A script's subject must be the one that this seed shows (see `subject_of`), or none.
    """
    rng = np.random.Generator(np.random.PCG64([seed, int(held_out), 3]))
    subject_rng, script_rng, backdrop_rng = rng.spawn(3)
    kind = subject_of(seed, held_out)
    script = script or random_script(script_rng, kind)
    displacement = WIDTHS_PER_SECOND_PER_BUCKET * motion_bucket_id / fps_id * SPEEDS[script.speed][0]
    if times.max() > 0:
        displacement = min(displacement, MAX_TRAVEL / int(times.max()))
    motion = camera_motion(script.camera, displacement, height / width)
    half_width, half_height = _reach(motion, int(times.max()), height / width)
    pictures = [_backdrop(backdrop_rng, half_width, half_height, width, held_out)]
    if kind:
        way = _WAYS[script.subject_motion]
        drift = tuple(SUBJECT_SPEED * displacement * axis for axis in way)
        pictures.append(_subject(subject_rng, kind, _object_seed(seed, held_out), width, height, held_out, drift))
    clip = torch.zeros(1)
    for picture in pictures:
        seen = picture.seen(motion, times, width, height)
        clip = seen[:, :3] + clip * (1 - seen[:, 3:]) if seen.shape[1] == 4 else seen
    frames = (clip.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return PromptedScene(frames, script)


def subject_of(seed: int, held_out: bool = False) -> str:
    """What stands in front of the scene of this seed; empty if nothing does, as in half of them."""
    rng = np.random.Generator(np.random.PCG64([seed, int(held_out), 4]))
    if rng.uniform() < 0.5:
        return ""
    return "balloon" if rng.uniform() < 0.35 else object_kind(_object_seed(seed, held_out))


def camera_motion(camera: str, displacement: float, aspect: float) -> Motion:
    """The camera's motion, named as in a script, that moves a picture by `displacement` on average over its area.

    aspect: the picture's height in widths.
    """
    turn = displacement / mean_radius(aspect)
    return {
        "left": Motion(pan_x=-displacement),
        "right": Motion(pan_x=displacement),
        "up": Motion(pan_y=-displacement),
        "down": Motion(pan_y=displacement),
        "in": Motion(zoom=turn),
        "out": Motion(zoom=-turn),
        "clockwise": Motion(roll=turn),
        "anticlockwise": Motion(roll=-turn),
        "still": Motion(),
    }[camera]


def mean_radius(aspect: float) -> float:
    """Mean distance of a picture's points from its centre, in widths: how far a zoom or roll by 1 moves it."""
    along = (np.arange(64) + 0.5) / 64 - 0.5
    return float(np.hypot(along[None], aspect * along[:, None]).mean())


def _reach(motion: Motion, last: int, aspect: float) -> tuple[float, float]:
    """How far to the side and up a camera sees in any frame up to the last."""
    corners = np.array([[-0.5, -0.5, 0.5, 0.5], [-aspect / 2, aspect / 2, -aspect / 2, aspect / 2], [1, 1, 1, 1]])
    places = np.abs(motion.frame_to_scene(last + 1) @ corners).max(axis=(0, 2))
    return float(places[0]), float(places[1])


def _backdrop(rng: Rng, half_width: float, half_height: float, width: int, held_out: bool) -> Picture:
    if rng.uniform() < 0.7:
        pixels = photograph_crop(rng, 2 * half_width, 2 * half_height, width, held_out)
    else:
        x, y = (_places(half, width) for half in (half_width, half_height))
        pixels = random_backdrop(rng, x, y)
    return Picture(_to_channels(pixels), half_width, half_height)


def _subject(
    rng: Rng, kind: str, object_seed: int, width: int, height: int, held_out: bool, drift: tuple[float, ...]
) -> Picture:
    """An object, or an irregular cut-out of a photograph with a soft edge; more often where it has room to move."""
    half = rng.uniform(0.07, 0.17)
    side = round(2 * half * width)
    if kind == "balloon":
        alpha = soft_blob(rng, side)[..., None]
        pixels = np.concatenate([photograph_crop(rng, 2 * half, 2 * half, width, held_out) * alpha, alpha], 2)
    else:
        obj = random_object(object_seed)
        turn = [rng.uniform(-10, 40)], [rng.uniform(0, 360)]
        pixels = render_orbit(obj, *turn, side)[0].astype(np.float32) / 255
        pixels[..., :3] *= pixels[..., 3:]
    room = 0.5 - half, 0.5 * height / width - 0.7 * half
    centre = [rng.uniform(-1, 1) * each for each in room]
    for axis in (0, 1):
        if drift[axis]:
            centre[axis] -= np.sign(drift[axis]) * rng.uniform(0, 0.6) * room[axis]
            centre[axis] = float(np.clip(centre[axis], -room[axis], room[axis]))
    return Picture(_to_channels(pixels), half, half, (centre[0], centre[1]), (drift[0], drift[1]))


def _places(half: float, width: int) -> Array:
    """The centres of the pixels, `width` per frame width, that fill the range from -half to half."""
    count = max(2, round(2 * width * half))
    return (((np.arange(count) + 0.5) / count * 2 - 1) * half).astype(np.float32)


def _to_channels(pixels: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32))


def _object_seed(seed: int, held_out: bool) -> int:
    rng = np.random.Generator(np.random.PCG64([seed, int(held_out), 5]))
    return int(rng.integers(HELD_OUT_SEED)) + (HELD_OUT_SEED if held_out else 0)
