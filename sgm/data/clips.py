"""The training pictures: stills and clips, each determined by its number alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import ModelConfig
from ..inputs.orbit import make_orbit
from .camera_moves import scene_clip, still_image
from .captions import Script
from .objects import HELD_OUT_SEED, random_object, render_orbit
from .prompted_scenes import prompted_scene
from .stills import varied_still

ELEVATION_RANGE_DEG = (-10.0, 40.0)
FPS_RANGE = (3.0, 24.0)


@dataclass(frozen=True)
class TrainingClip:
    """Frames (T, H, W, 3) uint8 RGB, the number of the frame that is the input, and the scalars they follow.

    A scalar is one number for the clip or one for each frame. script: what happens, in a clip that can be prompted.
    """

    frames: NDArray[np.uint8]
    input_frame: int
    scalars: Mapping[str, float | tuple[float, ...]]
    script: Script | None = None


@dataclass(frozen=True)
class Excerpt:
    """Numbers (n,) of the frames that a training step sees of a clip, the number of their input, and their scalars."""

    frames: NDArray[np.intp]
    input_frame: int
    scalars: Mapping[str, float | tuple[float, ...]]


def scene_excerpt(clip: TrainingClip, num_frames: int, rng: np.random.Generator) -> Excerpt:
    """Frames starting at the first one, the input: every one, or every other, ..., as far as the clip reaches.

    With frames skipped it is a clip of a lower frame rate.
    """
    stride = int(rng.integers(1, (len(clip.frames) - 1) // max(1, num_frames - 1) + 1))
    fps_id = float(np.array(clip.scalars["fps_id"])) / stride
    return Excerpt(stride * np.arange(num_frames), 0, {**clip.scalars, "fps_id": fps_id})


def whole_clip(clip: TrainingClip, num_frames: int, rng: np.random.Generator) -> Excerpt:
    """All frames, of a clip that was made with only as many as are seen."""
    assert len(clip.frames) == num_frames
    return Excerpt(np.arange(num_frames), clip.input_frame, clip.scalars)


def orbit_excerpt(clip: TrainingClip, num_frames: int, rng: np.random.Generator) -> Excerpt:
    """Random views in their order around the object, after a random view that is the input, at azimuth 0."""
    views = len(clip.frames)
    input_view = int(rng.integers(views))
    from_input = (input_view + 1 + np.sort(rng.permutation(views)[:num_frames])) % views
    polars, azimuths = np.array(clip.scalars["polar_rad"]), np.array(clip.scalars["azimuth_rad"])
    turned = (azimuths - azimuths[input_view]) % (2 * np.pi)
    scalars = {"polar_rad": tuple(polars[from_input].tolist()), "azimuth_rad": tuple(turned[from_input].tolist())}
    return Excerpt(from_input, input_view, scalars)


def training_still(number: int, size: int, seed: int) -> TrainingClip:
    """A single picture, as a clip of one frame."""
    return TrainingClip(still_image(_mix(number, seed), size)[None], 0, {})


def training_varied_still(number: int, size: int, seed: int) -> TrainingClip:
    """A piece of a larger picture of any kind, as a clip of one frame."""
    return TrainingClip(varied_still(_mix(number, seed), size)[None], 0, {})


def training_first_frame(number: int, size: int, seed: int) -> TrainingClip:
    """The picture that a scene starts from, as a clip of one frame."""
    return TrainingClip(scene_clip(_mix(number, seed), 1, size, 0, 1), 0, {})


def training_scene(number: int, size: int, num_frames: int, seed: int, speed: float = 1.0) -> TrainingClip:
    """A clip of a scene, with random motion strength and frame rate; it starts from its input.

    It moves `speed` times as fast as its motion_bucket_id says.
    """
    rng = np.random.Generator(np.random.PCG64([number, seed]))
    motion_bucket_id = float(rng.uniform(0, 255))
    low, high = np.log(FPS_RANGE)
    fps_id = float(np.exp(rng.uniform(low, high)))
    frames = scene_clip(_mix(number, seed), num_frames, size, speed * motion_bucket_id, fps_id)
    return TrainingClip(frames, 0, {"motion_bucket_id": motion_bucket_id, "fps_id": fps_id})


def training_prompted_scene(
    number: int, height: int, config: ModelConfig, seed: int, speed: float, num_frames: int
) -> TrainingClip:
    """Some frames of a scene that has a script, of random strength and frame rate; the first is the input.

    They are evenly spaced over a part of the version's clip, at random. It moves `speed` times as fast as its
    motion_bucket_id says. The pictures have the version's shape.
    """
    rng = np.random.Generator(np.random.PCG64([number, seed]))
    motion_bucket_id = float(rng.uniform(0, 255))
    low, high = np.log(FPS_RANGE)
    fps_id = float(np.exp(rng.uniform(low, high)))
    stride = int(rng.integers(1, (config.num_frames - 1) // max(1, num_frames - 1) + 1))
    width = round(height * config.width / config.height)
    times = stride * np.arange(num_frames)
    scene = prompted_scene(_mix(number, seed), times, width, height, speed * motion_bucket_id, fps_id)
    scalars = {"motion_bucket_id": motion_bucket_id, "fps_id": fps_id / stride}
    return TrainingClip(scene.frames, 0, scalars, scene.script)


def training_orbit(number: int, size: int, num_frames: int, seed: int) -> TrainingClip:
    """An orbit around an object; it ends at its input.

    Half of the orbits keep one elevation and half swing around it; a third have uneven steps of azimuth.
    """
    rng = np.random.Generator(np.random.PCG64([number, seed]))
    low, high = ELEVATION_RANGE_DEG
    turn = np.linspace(0, 2 * np.pi, num_frames + 1)[1:]
    elevations = np.full(num_frames, rng.uniform(low, high))
    if rng.uniform() < 0.5:
        swing = rng.uniform(0, 20) * np.sin(turn * rng.integers(1, 3) + rng.uniform(0, 2 * np.pi))
        elevations = np.clip(elevations + swing, low, high)
    azimuths = np.degrees(turn) % 360
    if rng.uniform() < 1 / 3:
        azimuths[:-1] = np.sort(rng.uniform(0, 360, num_frames - 1))
    orbit = make_orbit(num_frames, elevations.tolist(), azimuths.tolist())
    obj = random_object(_mix(number, seed) % HELD_OUT_SEED)
    pictures = render_orbit(obj, orbit.elevations_deg, orbit.azimuths_deg, size)
    scalars = {"polar_rad": tuple(orbit.polars_rad), "azimuth_rad": tuple(orbit.azimuths_rad)}
    return TrainingClip(over_white(pictures), num_frames - 1, scalars)


def training_clip(
    data: str,
    number: int,
    size: int,
    config: ModelConfig,
    seed: int,
    speed: float = 1.0,
    num_frames: int | None = None,
) -> TrainingClip:
    """The clip with this number of one kind of data (see `TrainingConfig.data`). Only scenes have a speed.

    num_frames: of a prompted scene, by default the version's; the other clips are whole.
    """
    if data == "prompted_scenes":
        return training_prompted_scene(number, size, config, seed, speed, num_frames or config.num_frames)
    if data == "stills":
        return training_still(number, size, seed)
    if data == "varied_stills":
        return training_varied_still(number, size, seed)
    if data == "first_frames":
        return training_first_frame(number, size, seed)
    if data == "scenes":
        return training_scene(number, size, config.num_frames, seed, speed)
    return training_orbit(number, size, config.num_frames, seed)


def over_white(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA pictures (..., 4) with straight alpha -> RGB (..., 3) on white."""
    alpha = pictures[..., 3:].astype(np.float32) / 255
    return (pictures[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)


def _mix(number: int, seed: int) -> int:
    """One seed from two numbers, so that runs with different seeds see different pictures."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0]) >> 2


def to_tensor(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """Pictures (n, H, W, 3) uint8 -> float32 (n, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
