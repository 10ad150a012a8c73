"""A clip's three outputs under one name: the video, the folder of frames and the record.

Everything is first written into a hidden folder beside its final place, then renamed. The folder of frames goes first:
a folder can't be renamed onto a full one, so that step also decides which of several processes gets the name. The video
goes last, so where there is a video, there is the whole clip.
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgm.errors import UserError
from sgm.outputs.record import Stages, write_record
from sgm.outputs.video import write_frames, write_video


class ClipPaths(NamedTuple):
    """Where a clip's outputs are: NAME.mp4, the folder NAME with 0000.jpg, 0001.jpg, ..., and NAME.json."""

    video: Path
    frames: Path
    record: Path


def make_output_folder(folder: Path) -> None:
    """Make the folder for outputs where it isn't there yet; UserError where it can't be made or written in."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:  # a file is in the way, it is someone else's, a disk that is read-only or full, a name too long
        writable = False
    if not writable:
        raise UserError(f"can't write in output_folder {folder}: give a folder that is yours to write in")


def save_clip(frames: NDArray[np.uint8], record: Mapping[str, Any], folder: Path, name: str, fps: float) -> ClipPaths:
    """Save a clip as NAME.mp4, NAME/0000.jpg ... and NAME.json in a folder, which is made where it isn't there yet.

    frames: uint8 (T, H, W, 3), RGB. record: as of `build_record`; the file tells of the writing too. fps: frames a
    second.
    Nothing is overwritten: where any of the three is taken, all three become NAME-1, or NAME-2, and so on. A failure or
    an interruption leaves nothing behind. Raises UserError where name is no plain file name or the folder can't be
    written in.
    """
    _check_name(name)
    make_output_folder(folder)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as aside:
        partial = _clip_paths(Path(aside), "clip")
        stages = Stages()
        with stages.measure("writing"):
            write_frames(partial.frames, frames)
            write_video(partial.video, frames, fps)
        write_record(partial.record, {**record, "stages": {**record.get("stages", {}), **stages.measured}})
        return _publish(partial, folder, name)


def _publish(partial: ClipPaths, folder: Path, name: str) -> ClipPaths:
    """Move a finished clip to the first free name."""
    for number in itertools.count():
        final = _clip_paths(folder, f"{name}-{number}" if number else name)
        if not any(os.path.lexists(path) for path in final) and _claim(partial.frames, final.frames):
            break
    try:
        partial.record.rename(final.record)
        partial.video.rename(final.video)
    except BaseException:
        final.record.unlink(missing_ok=True)
        shutil.rmtree(final.frames)
        raise
    return final


def _claim(source: Path, target: Path) -> bool:
    """Rename a full folder, or return False where another process has just taken the name."""
    try:
        source.rename(target)
    except OSError:
        if os.path.lexists(target):
            return False
        raise
    return True


def _clip_paths(folder: Path, name: str) -> ClipPaths:
    return ClipPaths(video=folder / f"{name}.mp4", frames=folder / name, record=folder / f"{name}.json")


def _check_name(name: str) -> None:
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise UserError(f"{name!r} can't name a clip: give a plain file name, without folders")
