"""A clip's outputs under one name: the video, the pictures, the folder of frames, and the record of them all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgm.errors import UserError
from sgm.outputs.pictures import write_frames, write_gif, write_webp
from sgm.outputs.provenance import Provenance
from sgm.outputs.publishing import check_name, part_path, publish
from sgm.outputs.record import write_record
from sgm.outputs.video import write_video
from sgm.stages import Stages
from sgm.storage.files import file_sha256

FORMATS = {"mp4": ".mp4", "gif": ".gif", "webp": ".webp", "frames": ""}  # each with what follows the clip's name
DEFAULT_FORMATS = ("mp4", "frames")
DEFAULT_QUALITY = 95


class ClipPaths(NamedTuple):
    """Where a clip's outputs are: its record, NAME.json, and by format NAME.mp4, the folder NAME with 0000.jpg, ..."""

    record: Path
    formats: dict[str, Path]

    @property
    def main(self) -> Path:
        """The one to look at first."""
        return next(iter(self.formats.values()))


def make_output_folder(folder: Path) -> None:
    """Make the folder for outputs where it isn't there yet; UserError where it can't be made or written in."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:  # a file is in the way, it is someone else's, a full or read-only disk, a name too long
        raise UserError(
            f"can't write in output_folder {folder} ({error.strerror}): give a folder that is yours to write in"
        ) from error


def save_clip(
    frames: NDArray[np.uint8],
    record: Mapping[str, Any],
    aside: Path,
    name: str,
    formats: Sequence[str] = DEFAULT_FORMATS,
    quality: int = DEFAULT_QUALITY,
) -> ClipPaths:
    """Write a clip in a workplace (see `sgm.outputs.publishing`), then put it beside that as NAME.json, NAME.mp4 ...

    frames: uint8 (T, H, W, 3), RGB. record: as of `build_record`; the file tells of the writing too. formats: of
    `FORMATS`. quality: 1 to 100, for MP4, JPEG and WebP.
    Nothing is overwritten: where any of the names is taken, all become NAME-1, or NAME-2, and so on. A failure or an
    interruption leaves nothing under a final name. Raises UserError where name is no plain file name.
    """
    check_name(name)
    stages = Stages()
    with stages.measure("writing"):
        for format_name in formats:
            write_clip(format_name, part_path(aside, FORMATS[format_name]), frames, record, quality)
    whole_record = {
        **record,
        "output": {**record["output"], "formats": list(formats), "quality": quality},
        "files": _describe(aside),
        "stages": {**record["stages"], **stages.measured},
    }
    write_record(part_path(aside, ".json"), whole_record, aside.parent)
    return clip_paths(aside.parent, publish(aside, name), formats)


def clip_paths(folder: Path, name: str, formats: Iterable[str]) -> ClipPaths:
    """The paths of the clip of that name."""
    return ClipPaths(folder / f"{name}.json", {known: folder / f"{name}{FORMATS[known]}" for known in formats})


def is_whole(record_path: Path, record: Mapping[str, Any]) -> bool:
    """Whether every file that a clip's record names can be read beside it, with the bytes that were written."""
    files = record.get("files")
    if not isinstance(files, dict) or not files:
        return False
    folder, name = os.path.realpath(record_path.parent), record_path.stem
    try:
        for suffix, sha256 in files.items():
            path = f"{folder}/{name}{suffix}"
            if os.path.realpath(path) != path or file_sha256(Path(path)) != sha256:  # a link may lead anywhere
                return False
    except (OSError, ValueError):  # one is missing, or has a name that no file has
        return False
    return True


def new_key() -> str:
    """A key for a workplace that nobody else has."""
    return secrets.token_hex(8)


def format_of(path: Path) -> str:
    """The format that a file's name asks for by its ending; UserError where it asks for none."""
    for format_name, suffix in FORMATS.items():
        if suffix and path.suffix.lower() == suffix:
            return format_name
    endings = ", ".join(filter(None, FORMATS.values()))
    raise UserError(f"a clip can't be saved as {path.name!r}: give a name that ends in one of {endings}")


def write_clip(
    format_name: str, path: Path, frames: NDArray[np.uint8], record: Mapping[str, Any], quality: int
) -> None:
    """Write frames, uint8 (T, H, W, 3) in RGB, in one of `FORMATS`; the record says how fast they play."""
    provenance, fps = Provenance.of(record), record["output"]["fps"]
    if format_name == "mp4":
        write_video(path, frames, fps, quality, provenance)
    elif format_name == "gif":
        write_gif(path, frames, fps, provenance)
    elif format_name == "webp":
        write_webp(path, frames, fps, quality, provenance)
    else:
        write_frames(path, frames, quality, provenance)


def _describe(aside: Path) -> dict[str, str]:
    """SHA-256 of every file that was written, by what follows the clip's name in its path: .mp4, /0000.jpg ..."""
    stem = str(part_path(aside, ""))
    return {
        path.as_posix().removeprefix(stem): file_sha256(path) for path in sorted(aside.rglob("*")) if path.is_file()
    }
