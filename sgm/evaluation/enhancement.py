"""What enhancing a clip is worth: true clips are degraded as a small model degrades its own, enhanced, and compared.

The true clips are held-out photographs, pixel for pixel, under known camera motions, some with a moving subject in
front. A clip's input picture is its true first frame. The plain way to enlarge, bicubic, is the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.camera_moves import MEAN_RADIUS, Layer, Motion
from ..data.objects import HELD_OUT_SEED, random_object, render_orbit
from ..data.photographs import HELD_OUT, Photograph, load_photograph
from ..metrics.likeness import Pictures, psnr, ssim
from ..metrics.motion import flicker_levels, optical_flow
from .generators import unit_range
from .report import Report

Pixels = NDArray[np.uint8]
Enhance = Callable[[Iterator[Pixels], Pixels], Iterable[Pixels]]  # chunks of a clip, its input picture -> chunks

SIZE, NUM_FRAMES, TIMES = 320, 14, 2  # of the true clips, and how often their degraded copies' sides go into theirs
SLOW, FAST = 0.006, 0.02  # frame widths per frame
MOTIONS = {
    "pan": Motion(pan_x=SLOW * 0.8, pan_y=SLOW * 0.6),
    "zoom in": Motion(zoom=SLOW / MEAN_RADIUS),
    "zoom out": Motion(zoom=-SLOW / MEAN_RADIUS),
    "roll": Motion(roll=SLOW / MEAN_RADIUS),
    "fast": Motion(pan_x=-FAST * 0.7, zoom=FAST * 0.5 / MEAN_RADIUS, roll=FAST * 0.3 / MEAN_RADIUS),
}
SUBJECTS = ("object", "cut-out")
SUBJECTS_HALF_WIDTH = 0.22
SUBJECTS_STEP = 0.012  # frame widths per frame

# As measured on svd_tiny's clips of photographs: the blur, in pixels of the small frame, that best explains its first
# and last frames, and what differs from frame to frame besides, in levels of 255.
FIRST_BLUR, LAST_BLUR = 0.7, 1.5
NOISE_LEVELS, FLICKER_LEVELS = 3.0, 0.7

LABELS = {
    "psnr_db": ("PSNR to the true clip, dB", ".2f"),
    "worst_gain_db": ("least gain in PSNR over bicubic of any clip, dB", ".2f"),
    "ssim": ("SSIM to the true clip", ".3f"),
    "sharpness_percent": ("sharpness of the last frame, % of the input's", ".0f"),
    "flicker_levels": ("flicker, levels of 255", ".2f"),
}


@dataclass(frozen=True)
class TrueClip:
    """A clip whose every pixel is known: what it shows, whether a subject moves in it, and its frames."""

    name: str
    has_subject: bool
    frames: Pixels


def true_clips(num_frames: int = NUM_FRAMES, size: int = SIZE) -> Iterator[TrueClip]:
    """Each held-out photograph under each camera motion, then with each subject walking across it."""
    for number, photograph in enumerate(HELD_OUT):
        backdrop = photograph_layer(photograph, size)
        for name, motion in MOTIONS.items():
            yield TrueClip(f"{photograph.file}, {name}", False, seen([backdrop], motion, num_frames, size))
        for name in SUBJECTS:
            layers = [backdrop, subject_layer(name, number, size)]
            clip = seen(layers, MOTIONS["pan"], num_frames, size)
            yield TrueClip(f"{photograph.file}, {name}", True, clip)


def photograph_layer(photograph: Photograph, size: int) -> Layer:
    """A photograph, one of its pixels to one of the first frame's."""
    picture = unit_range(np.asarray(load_photograph(photograph)))
    picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]  # so that pixels meet pixels
    tensor = torch.from_numpy(picture.transpose(2, 0, 1).copy())
    return Layer(tensor, picture.shape[1] / size / 2, picture.shape[0] / size / 2)


def subject_layer(name: str, number: int, size: int) -> Layer:
    """A subject that crosses the middle: an object, or a soft disc cut out of the next held-out photograph."""
    side = round(2 * SUBJECTS_HALF_WIDTH * size)
    if name == "object":
        cut = unit_range(render_orbit(random_object(HELD_OUT_SEED + number), [15.0], [30.0], side)[0])
        alpha = cut[..., 3:]
    else:
        picture = unit_range(np.asarray(load_photograph(HELD_OUT[(number + 1) % len(HELD_OUT)])))
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        cut = picture[top : top + side, left : left + side]
        across = np.abs(np.linspace(-1, 1, side, dtype=np.float32))
        alpha = np.float32((0.95 - np.hypot(across[:, None], across)) / 0.05).clip(0, 1)[..., None]
    picture = np.concatenate([cut[..., :3] * alpha, alpha], 2).transpose(2, 0, 1)
    start, step = SUBJECTS_STEP * NUM_FRAMES / 2, SUBJECTS_STEP / MOTIONS["pan"].mean_length()
    half = SUBJECTS_HALF_WIDTH
    return Layer(torch.from_numpy(picture.copy()), half, half, centre_x=-start, centre_y=0.05, drift=step)


def seen(layers: Sequence[Layer], motion: Motion, num_frames: int, size: int) -> Pixels:
    """What a camera sees of layers, back to front: (num_frames, size, size, 3)."""
    clip = torch.zeros(1)
    for layer in layers:
        frames = layer.frames(motion, motion.mean_length(), num_frames, size)
        clip = frames[:, :3] + clip * (1 - frames[:, 3:]) if frames.shape[1] == 4 else frames
    pixels = (clip.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    frames_of_all: Pixels = pixels.contiguous().numpy()
    return frames_of_all


def degraded(frames: Pixels, seed: int, times: int = TIMES) -> Pixels:
    """The clip `times` smaller, with growing blur, noise, and brightness that changes from frame to frame."""
    import cv2

    rng = np.random.Generator(np.random.PCG64(seed))
    size = frames.shape[2] // times, frames.shape[1] // times
    poor = []
    for frame, blur in zip(frames, np.linspace(FIRST_BLUR, LAST_BLUR, len(frames)), strict=True):
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        small = cv2.GaussianBlur(small, (0, 0), float(blur))
        small += rng.normal(0, NOISE_LEVELS, small.shape) + rng.normal(0, FLICKER_LEVELS)
        poor.append(small.round().clip(0, 255).astype(np.uint8))
    return np.stack(poor)


def enlarged(frames: Pixels, size: tuple[int, int]) -> Pixels:
    """Frames (t, h, w, 3) enlarged to (width, height), each by itself, bicubic."""
    import cv2

    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames])


def sharpness(picture: Pictures) -> float:
    """Mean energy of the gradient of a picture (H, W, 3) in [0, 1]: of differences between neighbouring pixels."""
    return float(np.square(np.diff(picture, axis=0)).mean() + np.square(np.diff(picture, axis=1)).mean())


def clip_scores(frames: Pictures, truth: Pictures, flow: NDArray[np.float32]) -> dict[str, float]:
    """The measurements of one clip (T, H, W, 3) in [0, 1]; flow: the true clip's, see `optical_flow`."""
    return {
        "psnr_db": psnr(frames, truth),
        "ssim": float(np.mean([ssim(frame, true) for frame, true in zip(frames, truth, strict=True)])),
        "sharpness_percent": 100 * sharpness(frames[-1]) / sharpness(truth[0]),
        "flicker_levels": flicker_levels(frames, flow),
    }


def evaluate_enhancement(
    enhance: Enhance, clips: Sequence[TrueClip], track: Callable[[Sequence[TrueClip]], Iterable[TrueClip]] = iter
) -> Report:
    """Scores of true clips that were degraded and enhanced, of the same enlarged bicubically, and of the true ones.

    track: wraps the list of clips to measure, to show how many are done.
    """
    details: list[dict[str, Any]] = []
    for number, clip in enumerate(track(clips)):
        poor, truth = degraded(clip.frames, seed=number), unit_range(clip.frames)
        made = np.concatenate(list(enhance(iter(np.array_split(poor, 2)), clip.frames[0])))
        plain = enlarged(poor, (truth.shape[2], truth.shape[1]))
        flow = optical_flow(truth)
        for source, frames in {"enhanced": made, "bicubic": plain, "true clips": clip.frames}.items():
            scores = clip_scores(unit_range(frames), truth, flow)
            details.append({"clip": clip.name, "subject": clip.has_subject, "source": source, **scores})
    kinds = {False: "camera motion", True: "moving subjects"}
    height, width = clips[0].frames.shape[1:3]
    return Report(
        title=f"{len(clips)} clips of held-out photographs, degraded to {width // TIMES}x{height // TIMES} pixels and "
        f"enlarged to {width}x{height}",
        labels=LABELS,
        scores={
            f"{source}, {kinds[subject]}": _means(details, source, subject)
            for subject in sorted({clip.has_subject for clip in clips})
            for source in ("enhanced", "bicubic", "true clips")
        },
        details=details,
    )


def _means(details: Sequence[dict[str, Any]], source: str, subject: bool) -> dict[str, float]:
    rows = [row for row in details if row["source"] == source and row["subject"] == subject]
    scores = {measure: float(np.mean([row[measure] for row in rows])) for measure in LABELS if measure in rows[0]}
    if source == "enhanced":
        plain = [row for row in details if row["source"] == "bicubic" and row["subject"] == subject]
        gains = [row["psnr_db"] - of["psnr_db"] for row, of in zip(rows, plain, strict=True)]
        scores["worst_gain_db"] = min(gains)
    if source == "true clips":
        del scores["psnr_db"], scores["ssim"]
    return scores
