"""Clips of photographs and painted scenes under one smooth camera motion, some with moving subjects in front.

A clip is a stack of flat layers. The scene's unit of length is the frame's width, the frame is [-0.5, 0.5]^2 with y
downwards, and time is counted in frames from the middle of the clip. In each frame every layer is sampled through its
own similarity transform, which is what makes pan, zoom, roll and parallax.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from .backdrops import random_backdrop, random_colour
from .objects import HELD_OUT_SEED, random_object, render_orbit
from .photographs import load_photograph, random_photograph

Array = NDArray[np.float32]

# A motion bucket of 127 moves the picture by 0.072 of its width a second: 1.2 % a frame at 6 frames a second.
WIDTHS_PER_SECOND_PER_BUCKET = 0.072 / 127
# Mean distance of a unit square's points from its middle: how far a zoom or roll by 1 moves the picture.
MEAN_RADIUS = float((np.sqrt(2) + np.arcsinh(1)) / 6)


@dataclass(frozen=True)
class Motion:
    """A steady camera motion: each number is a change per frame.

    pan_x, pan_y: of the camera's place, in frame widths; zoom: of the logarithm of the magnification; roll: of the
    camera's angle, in radians.
    """

    pan_x: float = 0.0
    pan_y: float = 0.0
    zoom: float = 0.0
    roll: float = 0.0

    def scaled(self, factor: float) -> Motion:
        """The motion as a layer at another depth shows it."""
        return Motion(self.pan_x * factor, self.pan_y * factor, self.zoom * factor, self.roll * factor)

    def frame_to_scene(self, num_frames: int) -> Array:
        """Matrices (num_frames, 2, 3) that take homogeneous places in each frame to places in the scene."""
        time = np.arange(num_frames) - (num_frames - 1) / 2
        shrink, angle = np.exp(-self.zoom * time), self.roll * time
        cosine, sine = shrink * np.cos(angle), shrink * np.sin(angle)
        rows = [[cosine, -sine, self.pan_x * time], [sine, cosine, self.pan_y * time]]
        return np.moveaxis(np.array(rows, np.float32), 2, 0)


@dataclass(frozen=True, eq=False)
class Layer:
    """A flat picture (3 or 4, h, w), in [0, 1], RGBA premultiplied, and where it is in the scene.

    It covers `half_width`, `half_height` around `centre_x`, `centre_y` in the scene; `motion` is the camera's as seen
    at the layer's depth. The layer's own movement is (`drift_x`, `drift_y`) in frame widths per frame.
    """

    picture: torch.Tensor
    motion: Motion
    half_width: float
    half_height: float
    centre_x: float = 0.0
    centre_y: float = 0.0
    drift_x: float = 0.0
    drift_y: float = 0.0

    def frames(self, num_frames: int, size: int) -> torch.Tensor:
        """What the camera sees (num_frames, 3 or 4, size, size). RGBA layers are transparent outside their picture."""
        time = np.arange(num_frames) - (num_frames - 1) / 2
        transform = self.motion.frame_to_scene(num_frames)
        transform[:, 0, 2] -= self.centre_x + self.drift_x * time
        transform[:, 1, 2] -= self.centre_y + self.drift_y * time
        transform[:, :, :2] /= 2  # torch counts from -1 to 1 across the frame and across the picture
        transform /= np.array([[self.half_width], [self.half_height]], np.float32)
        channels = len(self.picture)
        grid = F.affine_grid(torch.from_numpy(transform), [num_frames, channels, size, size], align_corners=False)
        padding = "zeros" if channels == 4 else "reflection"
        picture = self.picture.expand(num_frames, -1, -1, -1)
        return F.grid_sample(picture, grid, mode="bicubic", padding_mode=padding, align_corners=False)


def scene_clip(
    seed: int, num_frames: int, size: int, motion_bucket_id: float, fps_id: float, held_out: bool = False
) -> NDArray[np.uint8]:
    """A clip (num_frames, size, size, 3), RGB, whose first frame is the picture that it starts from.

    The camera pans, zooms, rolls, or passes layers of different depths. The picture moves, on average over its area,
    by `WIDTHS_PER_SECOND_PER_BUCKET * motion_bucket_id` frame widths a second, so by a `fps_id`-th of that from frame
    to frame. Moving subjects and layers of different depths add their own, in the same proportion.

    seed: any integer from 0; a seed has the same kind of motion, and nearly the same content, at every strength.
    motion_bucket_id: 0 (static) to 255. fps_id: frames a second. held_out: take what is never trained on.
    """
    rng = np.random.Generator(np.random.PCG64([seed, int(held_out)]))
    displacement = WIDTHS_PER_SECOND_PER_BUCKET * motion_bucket_id / fps_id
    motion, has_depth = _random_motion(rng, displacement)
    backdrop_motion = motion.scaled(0.75) if has_depth else motion
    backdrop = _photograph_layer if rng.uniform() < (0.6 if not held_out else 0.75) else _painted_layer
    clip = backdrop(rng, backdrop_motion, num_frames, size, held_out).frames(num_frames, size)
    num_subjects = int(rng.integers(1, 3)) if has_depth else int(rng.choice(3, p=[0.4, 0.4, 0.2]))
    for depth in np.linspace(1.25, 1.75, num_subjects) if has_depth else [1.0] * num_subjects:
        subject = _subject_layer(rng, motion.scaled(float(depth)), displacement, size, held_out)
        layer = subject.frames(num_frames, size)
        clip = layer[:, :3] + clip * (1 - layer[:, 3:])
    frames: NDArray[np.uint8] = (
        (clip.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    )
    return frames


def still_image(seed: int, size: int, held_out: bool = False) -> NDArray[np.uint8]:
    """A picture (size, size, 3), RGB, for the autoencoder: half of them scenes, half objects over white."""
    rng = np.random.Generator(np.random.PCG64([seed, int(held_out), 1]))
    if rng.uniform() < 0.5:
        scene: NDArray[np.uint8] = scene_clip(int(rng.integers(2**62)), 1, size, 0, 1, held_out)[0]
        return scene
    view = _object_view(rng, size, held_out)
    over_white: NDArray[np.uint8] = ((view[..., :3] + 1 - view[..., 3:]) * 255).round().astype(np.uint8)
    return over_white


def _random_motion(rng: np.random.Generator, displacement: float) -> tuple[Motion, bool]:
    """A camera motion that moves the picture by `displacement` on average, and whether layers differ in depth."""
    direction, sign = rng.uniform(0, 2 * np.pi), float(rng.choice([-1, 1]))
    pan = Motion(pan_x=displacement * float(np.cos(direction)), pan_y=displacement * float(np.sin(direction)))
    turn = sign * displacement / MEAN_RADIUS
    kind = rng.uniform()
    if kind < 0.35:
        return pan, False
    if kind < 0.6:
        return Motion(zoom=turn), False
    if kind < 0.7:
        return Motion(roll=turn), False
    return (pan, True) if kind < 0.9 else (Motion(zoom=turn), True)


def _extent(motion: Motion, num_frames: int) -> Array:
    """The scene's box ((left, top), (right, bottom)) that the camera sees in the whole clip."""
    corners = np.array([[-0.5, -0.5, 0.5, 0.5], [-0.5, 0.5, -0.5, 0.5], [1, 1, 1, 1]], np.float32)
    seen = motion.frame_to_scene(num_frames) @ corners
    return np.stack([seen.min(axis=(0, 2)), seen.max(axis=(0, 2))])


def _backdrop_layer(picture: Array, motion: Motion, extent: Array) -> Layer:
    """A layer whose picture (h, w, 3) covers the extent."""
    centre, half = extent.mean(axis=0), (extent[1] - extent[0]) / 2
    tensor = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32))
    return Layer(tensor, motion, float(half[0]), float(half[1]), float(centre[0]), float(centre[1]))


def _photograph_layer(rng: np.random.Generator, motion: Motion, num_frames: int, size: int, held_out: bool) -> Layer:
    """A random crop of a photograph, just big enough for all that the camera sees."""
    extent = _extent(motion, num_frames)
    width, height = extent[1] - extent[0]
    return _backdrop_layer(_photograph_crop(rng, float(width), float(height), size, held_out), motion, extent)


def _photograph_crop(rng: np.random.Generator, width: float, height: float, size: int, held_out: bool) -> Array:
    """A random crop (h, w, 3) of a photograph: `width` by `height` in frame widths of `size` pixels each."""
    photograph = random_photograph(rng, held_out)
    image = load_photograph(photograph)
    pixels = rng.uniform(0.45, 1) * min(image.width / width, image.height / height)  # of the photograph a frame width
    left = rng.uniform(0, image.width - pixels * width)
    top = rng.uniform(0, image.height - pixels * height)
    crop = image.resize(
        (max(2, round(size * width)), max(2, round(size * height))),
        Image.Resampling.BICUBIC,
        box=(left, top, left + pixels * width, top + pixels * height),
    )
    picture = np.asarray(crop, np.float32) / 255
    if rng.uniform() < 0.5:
        picture = picture[:, ::-1]
    gamma, gains = rng.uniform(0.8, 1.25), rng.uniform(0.88, 1.12, 3)
    if not photograph.colour:
        dark, bright = random_colour(rng, least=0.0) * 0.3, random_colour(rng, (0, 0.5), least=0.75)
        picture = dark + (bright - dark) * picture
    return np.clip(picture**gamma * gains, 0, 1).astype(np.float32)


def _painted_layer(rng: np.random.Generator, motion: Motion, num_frames: int, size: int, held_out: bool) -> Layer:
    """A landscape, room or pattern, with up to three objects standing in it."""
    extent = _extent(motion, num_frames)
    x, y = (_pixel_places(float(low), float(high), size) for low, high in extent.T)
    picture = random_backdrop(rng, x, y)
    for foot in np.sort(rng.uniform(0.5, 1, int(rng.integers(0, 4)))):  # the nearer, the lower and the bigger
        side = round(size * rng.uniform(0.5, 0.7) * foot)
        view = _object_view(rng, side, held_out)
        left, top = int(rng.integers(0, len(x) - side)), round((len(y) - side) * (2 * foot - 1))
        behind = picture[top : top + side, left : left + side]
        behind *= 1 - view[..., 3:]
        behind += view[..., :3]
    return _backdrop_layer(picture, motion, extent)


def _pixel_places(low: float, high: float, size: int) -> Array:
    """The middles of the pixels, `size` to a frame width, that fill the range from low to high."""
    count = max(2, round(size * (high - low)))
    return (low + (np.arange(count) + 0.5) * ((high - low) / count)).astype(np.float32)


def _subject_layer(rng: np.random.Generator, motion: Motion, displacement: float, size: int, held_out: bool) -> Layer:
    """An object, or an irregular cut-out of a photograph with a soft edge, that moves along its own straight path."""
    half_width = rng.uniform(0.12, 0.3)
    side = round(2 * half_width * size)
    if rng.uniform() < 0.6:
        picture = _object_view(rng, side, held_out)
    else:
        alpha = _soft_blob(rng, side)[..., None]
        picture = np.concatenate(
            [_photograph_crop(rng, 2 * half_width, 2 * half_width, size, held_out) * alpha, alpha], 2
        )
    direction, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.5) * displacement
    centre = rng.uniform(-0.3, 0.3, 2)
    return Layer(
        torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32)),
        motion,
        float(half_width),
        float(half_width),
        float(centre[0]),
        float(centre[1]),
        drift_x=float(speed * np.cos(direction)),
        drift_y=float(speed * np.sin(direction)),
    )


def _object_view(rng: np.random.Generator, size: int, held_out: bool) -> Array:
    """A random object from a random side (size, size, 4): RGBA, premultiplied, in [0, 1]."""
    obj = random_object(int(rng.integers(HELD_OUT_SEED)) + (HELD_OUT_SEED if held_out else 0))
    view: Array = render_orbit(obj, [rng.uniform(-10, 40)], [rng.uniform(0, 360)], size)[0].astype(np.float32) / 255
    view[..., :3] *= view[..., 3:]
    return view


def _soft_blob(rng: np.random.Generator, side: int) -> Array:
    """Coverage (side, side) in [0, 1] of an irregular round shape with a soft edge."""
    across = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(across, across)
    angle, radius = np.arctan2(y, x), np.full_like(x, 0.72)
    for wave in range(2, 6):
        radius += rng.uniform(0, 0.22 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    return np.clip((radius - np.hypot(x, y)) / rng.uniform(0.04, 0.12), 0, 1).astype(np.float32)
