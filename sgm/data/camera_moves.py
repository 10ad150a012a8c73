"""Clips of photographs and painted scenes under one smooth camera motion, some with moving subjects in front.

A clip is a stack of flat layers. The scene's unit of length is the frame's width, the frame is [-0.5, 0.5]^2 with y
downwards, and time is counted in frames from the first one. In each frame every layer is sampled through its own
similarity transform, which produces pan, zoom, roll and parallax.

The camera's motion follows from the first frame, as it largely does in real footage. If it were random, a small model,
which can't infer the motion from noisy frames, would learn the average of all motions: a blur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from .backdrops import random_backdrop
from .objects import HELD_OUT_SEED, random_object, render_orbit
from .photographs import load_photograph, random_photograph, recoloured

Array = NDArray[np.float32]

# A motion bucket of 127 moves the picture by 0.016 of its width per second: 0.27 % per frame at 6 frames per second.
WIDTHS_PER_SECOND_PER_BUCKET = 0.016 / 127
# Mean distance of a unit square's points from its centre: how far a zoom or roll by 1 moves the picture.
MEAN_RADIUS = float((np.sqrt(2) + np.arcsinh(1)) / 6)
# How much brighter the picture's middle appears to the camera than it is, so that it mostly moves in.
PULL_OF_THE_MIDDLE = 0.05
SUBJECTS_NEARNESS = 1.5


@dataclass(frozen=True)
class Motion:
    """A steady camera motion: each number is a change per frame.

    pan_x, pan_y: of the camera's position, in frame widths; zoom: of the logarithm of the magnification; roll: of the
    camera's angle, in radians.
    """

    pan_x: float = 0.0
    pan_y: float = 0.0
    zoom: float = 0.0
    roll: float = 0.0

    def scaled(self, factor: float) -> Motion:
        """The motion as seen on a layer at another depth."""
        return Motion(self.pan_x * factor, self.pan_y * factor, self.zoom * factor, self.roll * factor)

    def mirrored(self) -> Motion:
        """The motion of the mirrored picture."""
        return Motion(-self.pan_x, self.pan_y, self.zoom, -self.roll)

    def mean_length(self) -> float:
        """How far it moves the picture per frame, in frame widths, on average over the first frame."""
        x, y = _grid(32)
        return float(
            np.hypot(self.pan_x - self.zoom * x - self.roll * y, self.pan_y - self.zoom * y + self.roll * x).mean()
        )

    def frame_to_scene(self, num_frames: int) -> Array:
        """Matrices (num_frames, 2, 3) that map homogeneous positions in each frame to positions in the scene."""
        time = np.arange(num_frames)
        shrink, angle = np.exp(-self.zoom * time), self.roll * time
        cosine, sine = shrink * np.cos(angle), shrink * np.sin(angle)
        rows = [[cosine, -sine, self.pan_x * time], [sine, cosine, self.pan_y * time]]
        return np.moveaxis(np.array(rows, np.float32), 2, 0)


@dataclass(frozen=True, eq=False)
class Layer:
    """A flat picture (3 or 4, h, w), in [0, 1], RGBA premultiplied, and where it is in the scene.

    In the first frame it extends `half_width` and `half_height` from `centre_x`, `centre_y`. On it the camera's motion
    looks `nearness` times as fast. The layer itself moves sideways by `drift` times the picture's mean displacement.
    """

    picture: torch.Tensor
    half_width: float
    half_height: float
    centre_x: float = 0.0
    centre_y: float = 0.0
    nearness: float = 1.0
    drift: float = 0.0

    def frames(self, motion: Motion, displacement: float, num_frames: int, size: int) -> torch.Tensor:
        """What the camera sees (num_frames, 3 or 4, size, size). RGBA layers are transparent outside their picture.

        motion: the camera's, which moves the picture by `displacement` frame widths per frame, on average.
        """
        transform = motion.scaled(self.nearness).frame_to_scene(num_frames)
        transform[:, 0, 2] -= self.centre_x + self.drift * displacement * np.arange(num_frames)
        transform[:, 1, 2] -= self.centre_y
        transform[:, :, :2] /= 2  # torch's coordinates go from -1 to 1 across the frame and across the picture
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

    The camera moves in or out, pans and rolls as `camera_motion` says. The picture moves, on average over its area, by
    `WIDTHS_PER_SECOND_PER_BUCKET * motion_bucket_id` frame widths per second, and by 1 / `fps_id` of that per frame. Up
    to two subjects are nearer, so they move faster, and walk towards the middle.

    seed: any integer from 0; a seed has nearly the same content at every motion strength. motion_bucket_id: 0 (static)
    to 255. fps_id: frames per second. held_out: whether to use only content that is never trained on.
    """
    rng = np.random.Generator(np.random.PCG64([seed, int(held_out)]))
    displacement = WIDTHS_PER_SECOND_PER_BUCKET * motion_bucket_id / fps_id
    backdrop = _photograph_layer if rng.uniform() < (0.6 if not held_out else 0.75) else _painted_layer
    layers = [backdrop(rng, _half_extent(displacement * (num_frames - 1)), size, held_out)]
    layers += [_subject_layer(rng, size, held_out) for _ in range(rng.choice(3, p=[0.4, 0.4, 0.2]))]
    first = _see(layers, Motion(), 0, 1, size)[0]
    clip = _see(layers, camera_motion(first, displacement), displacement, num_frames, size)
    frames: NDArray[np.uint8] = (clip * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return frames


def camera_motion(first: torch.Tensor, displacement: float) -> Motion:
    """The camera's motion after a first frame (3, h, h), which moves the picture by `displacement` on average.

    The camera is drawn to the light: it pans to the brighter side, moves in if the middle is brighter than the edges
    and out if the edges are, and rolls from the darker pair of opposite corners to the brighter one. It does all of
    these at once, each in proportion to its contrast.
    """
    light = first.mean(0).numpy()
    x, y = _grid(len(light))
    patterns = np.stack([x, y, -(x**2 + y**2), x * y])
    patterns -= patterns.mean(axis=(1, 2), keepdims=True)
    patterns /= patterns.std(axis=(1, 2), keepdims=True)
    right, down, middle, diagonal = (patterns * light).mean(axis=(1, 2)).tolist()
    motion = Motion(right, down, (middle + PULL_OF_THE_MIDDLE) / MEAN_RADIUS, diagonal / MEAN_RADIUS)
    return motion.scaled(displacement / motion.mean_length())


def _see(layers: Sequence[Layer], motion: Motion, displacement: float, num_frames: int, size: int) -> torch.Tensor:
    """The frames (num_frames, 3, size, size), in [0, 1], of all layers, from back to front."""
    clip = torch.zeros(1)
    for layer in layers:
        seen = layer.frames(motion, displacement, num_frames, size)
        clip = seen[:, :3] + clip * (1 - seen[:, 3:]) if seen.shape[1] == 4 else seen
    return clip.clamp(0, 1)


def _grid(size: int) -> Array:
    """The positions (2, size, size), x and y, of a frame's pixels."""
    along = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    return np.stack(np.meshgrid(along, along))


def still_image(seed: int, size: int, held_out: bool = False) -> NDArray[np.uint8]:
    """A picture (size, size, 3), RGB, for the autoencoder: half of them scenes, half objects over white."""
    rng = np.random.Generator(np.random.PCG64([seed, int(held_out), 1]))
    if rng.uniform() < 0.5:
        scene: NDArray[np.uint8] = scene_clip(int(rng.integers(2**62)), 1, size, 0, 1, held_out)[0]
        return scene
    view = random_object_view(rng, size, held_out)
    over_white: NDArray[np.uint8] = ((view[..., :3] + 1 - view[..., 3:]) * 255).round().astype(np.uint8)
    return over_white


def _half_extent(travel: float) -> float:
    """Half the side of a square that holds all that a camera sees, however it moves the picture by `travel`.

    Zooming out alone shows exp(travel / MEAN_RADIUS) times the frame; with a pan, its corners reach farther still.
    """
    return 0.5 * float(np.exp(1.3 * travel / MEAN_RADIUS))


def _backdrop_layer(picture: Array, half_extent: float) -> Layer:
    """A layer of a picture (h, w, 3)."""
    tensor = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32))
    return Layer(tensor, half_extent, half_extent)


def _photograph_layer(rng: np.random.Generator, half_extent: float, size: int, held_out: bool) -> Layer:
    """A random crop of a photograph, just big enough for all that the camera may see."""
    side = 2 * half_extent
    return _backdrop_layer(photograph_crop(rng, side, side, size, held_out), half_extent)


def photograph_crop(rng: np.random.Generator, width: float, height: float, size: int, held_out: bool) -> Array:
    """A random crop (h, w, 3) of a photograph: `width` by `height` in frame widths of `size` pixels each."""
    photograph = random_photograph(rng, held_out)
    image = load_photograph(photograph)
    pixels = rng.uniform(0.45, 1) * min(
        image.width / width, image.height / height
    )  # of the photograph, per frame width
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
    return recoloured(rng, picture, photograph)


def _painted_layer(rng: np.random.Generator, half_extent: float, size: int, held_out: bool) -> Layer:
    """A landscape, room or pattern, with up to three objects standing in it."""
    along = _pixel_places(-half_extent, half_extent, size)
    picture = random_backdrop(rng, along, along)
    for foot in np.sort(rng.uniform(0.5, 1, int(rng.integers(0, 4)))):  # nearer ones stand lower and are bigger
        side = round(size * rng.uniform(0.5, 0.7) * foot)
        view = random_object_view(rng, side, held_out)
        left, top = int(rng.integers(0, len(along) - side)), round((len(along) - side) * (2 * foot - 1))
        behind = picture[top : top + side, left : left + side]
        behind *= 1 - view[..., 3:]
        behind += view[..., :3]
    return _backdrop_layer(picture, half_extent)


def _pixel_places(low: float, high: float, size: int) -> Array:
    """The centres of the pixels, `size` per frame width, that fill the range from low to high."""
    count = max(2, round(size * (high - low)))
    return (low + (np.arange(count) + 0.5) * ((high - low) / count)).astype(np.float32)


def _subject_layer(rng: np.random.Generator, size: int, held_out: bool) -> Layer:
    """An object, or an irregular cut-out of a photograph with a soft edge, that walks towards the middle."""
    half_width = rng.uniform(0.12, 0.3)
    side = round(2 * half_width * size)
    if rng.uniform() < 0.6:
        picture = random_object_view(rng, side, held_out)
    else:
        alpha = soft_blob(rng, side)[..., None]
        picture = np.concatenate(
            [photograph_crop(rng, 2 * half_width, 2 * half_width, size, held_out) * alpha, alpha], 2
        )
    centre_x, centre_y = rng.uniform(-0.3, 0.3, 2)
    return Layer(
        torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32)),
        float(half_width),
        float(half_width),
        float(centre_x),
        float(centre_y),
        nearness=SUBJECTS_NEARNESS,
        drift=float(np.clip(-centre_x / 0.15, -1, 1)),
    )


def random_object_view(rng: np.random.Generator, size: int, held_out: bool) -> Array:
    """A random object from a random side (size, size, 4): RGBA, premultiplied, in [0, 1]."""
    obj = random_object(int(rng.integers(HELD_OUT_SEED)) + (HELD_OUT_SEED if held_out else 0))
    view: Array = render_orbit(obj, [rng.uniform(-10, 40)], [rng.uniform(0, 360)], size)[0].astype(np.float32) / 255
    view[..., :3] *= view[..., 3:]
    return view


def soft_blob(rng: np.random.Generator, side: int) -> Array:
    """Coverage (side, side) in [0, 1] of an irregular round shape with a soft edge."""
    across = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(across, across)
    angle, radius = np.arctan2(y, x), np.full_like(x, 0.72)
    for wave in range(2, 6):
        radius += rng.uniform(0, 0.22 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    return np.clip((radius - np.hypot(x, y)) / rng.uniform(0.04, 0.12), 0, 1).astype(np.float32)
