"""Frames as picture files: a folder of JPEGs, an animated WebP, an animated GIF.

JPEGs are saved without colour subsampling, for the watermark lives in the colour of 2x2 pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sgm.outputs.provenance import Provenance

if TYPE_CHECKING:
    from PIL import Image


def write_frames(folder: Path, frames: NDArray[np.uint8], quality: int, provenance: Provenance) -> None:
    """Write frames, uint8 (T, H, W, 3) in RGB, into a folder: see `frames_writer`."""
    frames_writer(folder, quality, provenance)(frames)


def frames_writer(folder: Path, quality: int, provenance: Provenance) -> Callable[[NDArray[np.uint8]], None]:
    """The function that takes frames, uint8 (n, H, W, 3) in RGB, into a folder as 0000.jpg, 0001.jpg, ...

    Their sizes stay. quality: 1 to 100, as JPEG counts.
    """
    folder.mkdir(exist_ok=True)
    exif, xmp = provenance.exif(), provenance.xmp()
    numbers = itertools.count()

    def write(frames: NDArray[np.uint8]) -> None:
        for picture in _pictures(frames):
            path = folder / f"{next(numbers):04d}.jpg"
            picture.save(path, quality=quality, subsampling="4:4:4", exif=exif, xmp=xmp)

    return write


def write_webp(path: Path, frames: NDArray[np.uint8], fps: float, quality: int, provenance: Provenance) -> None:
    """Write frames, uint8 (T, H, W, 3) in RGB, as an animated WebP that plays for ever.

    fps: frames a second, kept to a millisecond over the whole clip. quality: 1 to 100, as WebP counts.
    """
    first, *others = _pictures(frames)
    duration = durations_ms(len(frames), fps)
    exif = provenance.exif().tobytes().removeprefix(b"Exif\0\0")  # the header is JPEG's
    more = {"exif": exif, "xmp": provenance.xmp()}
    first.save(path, "WEBP", save_all=True, append_images=others, duration=duration, loop=0, quality=quality, **more)


def write_gif(path: Path, frames: NDArray[np.uint8], fps: float, provenance: Provenance) -> None:
    """Write frames, uint8 (T, H, W, 3) in RGB, as an animated GIF that plays for ever, in 256 colours for all frames.

    fps: frames a second, kept to a hundredth of a second over the whole clip; at most 50, for viewers slow down faster
    animations.
    """
    from PIL import Image

    everything = Image.fromarray(np.concatenate(frames))  # one palette, so that colours don't flicker
    palette = everything.quantize(256, Image.Quantize.MEDIANCUT)
    first, *others = (picture.quantize(palette=palette) for picture in _pictures(frames))
    duration = durations_ms(len(frames), fps, unit=10, least=2)
    comment = provenance.comment.encode()
    first.save(path, "GIF", save_all=True, append_images=others, duration=duration, loop=0, comment=comment)


def durations_ms(num_frames: int, fps: float, unit: int = 1, least: int = 1) -> list[int]:
    """How long each frame is shown in milliseconds, in whole units, at least so many.

    What is rounded is when a frame ends, not how long it lasts, so that a clip's length is right to a unit.
    """
    durations, passed = [], 0
    for number in range(1, num_frames + 1):
        units = max(least, round(number * 1000 / fps / unit) - passed)
        durations.append(units * unit)
        passed += units
    return durations


def _pictures(frames: NDArray[np.uint8]) -> list[Image.Image]:
    from PIL import Image

    assert frames.dtype == np.uint8, f"frames must be uint8, not {frames.dtype}"
    assert frames.ndim == 4, f"frames must be (T, H, W, 3), not {frames.shape}"
    assert frames.shape[3] == 3, f"frames must be (T, H, W, 3), not {frames.shape}"
    assert frames.size > 0, f"frames must not be empty: {frames.shape}"
    return [Image.fromarray(frame) for frame in frames]
