"""How well interpolation makes the frames that videos have: every second one is left out, made, and compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..enhance.interpolation import interpolate
from ..errors import UserError
from ..metrics.likeness import psnr
from ..metrics.tables import markdown_table
from ..outputs.video import read_frames

Frame = NDArray[np.uint8]  # (H, W, 3), RGB
Track = Callable[[str, Sequence[Path]], Iterable[Path]]

METHODS = ("repeat", "average", "flow")


@dataclass(frozen=True)
class Scores:
    """Of one video: its size, how many frames were made, the mean PSNR in dB of each of METHODS, and flow's time."""

    video: str
    width: int
    height: int
    frames_made: int
    psnr_db: Mapping[str, float]
    seconds_per_frame: float


@dataclass(frozen=True)
class InterpolationReport:
    """The scores of all videos, and their mean."""

    scores: Sequence[Scores]
    title: str = "every second frame left out and made again: mean PSNR in dB"

    @property
    def mean_psnr_db(self) -> dict[str, float]:
        """By method, the mean over the videos."""
        return {method: float(np.mean([of.psnr_db[method] for of in self.scores])) for method in METHODS}

    def table(self) -> str:
        """A Markdown table with a row for each video, and one for their mean."""
        rows = [["video", "size", "frames made", *METHODS, "seconds a frame"]]
        for of in self.scores:
            values = [f"{of.psnr_db[method]:.2f}" for method in METHODS]
            size = f"{of.width}x{of.height}"
            rows.append([of.video, size, str(of.frames_made), *values, f"{of.seconds_per_frame:.2f}"])
        rows.append(["mean", "", "", *(f"{mean:.2f}" for mean in self.mean_psnr_db.values()), ""])
        return markdown_table(rows)

    def as_json(self) -> dict[str, Any]:
        """Title, means and the scores of each video."""
        return {"title": self.title, "mean_psnr_db": self.mean_psnr_db, "videos": [vars(of) for of in self.scores]}


def evaluate_interpolation(
    videos: Sequence[Path], most_frames: int | None = None, track: Track = lambda name, paths: paths
) -> InterpolationReport:
    """Measure the interpolation of `sgm.enhance` on video files, beside repeating and averaging the neighbours.

    most_frames: how many frames of each video to read, from its beginning; by default all. A few are held at a time.
    track: wraps the list of videos, to show how many are done.
    Raises UserError for a video of fewer than three frames, and OSError for one that can't be read.
    """
    return InterpolationReport([_scores_of(path, most_frames) for path in track("videos", videos)])


def _scores_of(path: Path, most_frames: int | None) -> Scores:
    psnrs: dict[str, list[float]] = {method: [] for method in METHODS}
    seconds = 0.0
    shape: tuple[int, ...] = ()
    for before, truth, after in _triples(islice(read_frames(path), most_frames)):
        start = time.perf_counter()
        flow = between(before, after)
        seconds += time.perf_counter() - start
        average = ((before.astype(np.uint16) + after + 1) // 2).astype(np.uint8)
        for method, made in zip(METHODS, (before, average, flow), strict=True):
            psnrs[method].append(psnr(_unit(made), _unit(truth)))
        shape = truth.shape
    if not shape:
        raise UserError(f"{path} has fewer than three frames: give a longer video")
    count = len(psnrs["flow"])
    means = {method: float(np.mean(values)) for method, values in psnrs.items()}
    return Scores(path.name, shape[1], shape[0], count, means, seconds / count)


def between(before: Frame, after: Frame) -> Frame:
    """The frame halfway between two, made by `interpolate`."""
    return np.concatenate(list(interpolate([np.stack([before, after])], 1, 2, num_frames=2)))[1]


def _triples(frames: Iterable[Frame]) -> Iterator[tuple[Frame, Frame, Frame]]:
    """Each second frame with its two neighbours: 0 1 2, 2 3 4, ..."""
    remaining = iter(frames)
    before = next(remaining, None)
    while before is not None:
        truth, after = next(remaining, None), next(remaining, None)
        if truth is None or after is None:
            return
        yield before, truth, after
        before = after


def _unit(frame: Frame) -> NDArray[np.float32]:
    return np.asarray(frame / 255, np.float32)
