"""A clip's outputs under one name: the video, the pictures, the folder of frames, and the record of them all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgm.errors import UserError
from sgm.outputs.pictures import frames_writer, write_gif, write_webp
from sgm.outputs.provenance import Provenance
from sgm.outputs.publishing import check_name, part_path, publish
from sgm.outputs.record import write_record
from sgm.outputs.video import video_writer
from sgm.stages import Stages
from sgm.storage.files import file_sha256

Pixels = NDArray[np.uint8]

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
    """Create the folder for outputs if needed; UserError if it can't be created or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except FileExistsError as error:
        raise UserError(f"output_folder {folder} is a file: give another folder") from error
    except OSError as error:  # someone else's folder, a file in its path, a full or read-only disk, a name too long
        raise UserError(
            f"can't write to output_folder {folder} ({error.strerror}): give a folder that you can write to"
        ) from error


def save_clip(
    chunks: Iterable[Pixels],
    record: Callable[[], Mapping[str, Any]],
    aside: Path,
    name: str,
    formats: Sequence[str] = DEFAULT_FORMATS,
    quality: int = DEFAULT_QUALITY,
) -> ClipPaths:
    """Write a clip in a workplace (see `sgm.outputs.publishing`), then move it next to that as NAME.json, NAME.mp4 ...

    chunks: the frames, uint8 (n, H, W, 3) in RGB, as they come: MP4 and JPEGs are written chunk by chunk, so a clip of
    any length needs the memory of one. record: returns what `build_record` does; called again once all frames have
    come, since it says what they took. formats: of `FORMATS`. quality: 1 to 100, for MP4, JPEG and WebP.
    Nothing is overwritten: if any of the names is taken, all become NAME-1, or NAME-2, and so on. A failure or an
    interruption leaves nothing under a final name. Raises UserError if name isn't a plain file name.
    """
    check_name(name)
    stages = Stages()
    provenance, fps = Provenance.of(record()), record()["output"]["fps"]
    paths = {name: part_path(aside, FORMATS[name]) for name in formats}
    with ExitStack() as stack:
        writers = [stack.enter_context(clip_writer(name, paths[name], fps, quality, provenance)) for name in paths]
        for chunk in chunks:
            with stages.measure("writing"):
                for write in writers:
                    write(chunk)
        with stages.measure("writing"):
            stack.close()
    made = record()
    whole_record = {
        **made,
        "output": {**made["output"], "formats": list(formats), "quality": quality},
        "files": _describe(aside),
        "stages": {**made["stages"], **stages.measured},
    }
    write_record(part_path(aside, ".json"), whole_record, aside.parent)
    return clip_paths(aside.parent, publish(aside, name), formats)


def clip_paths(folder: Path, name: str, formats: Iterable[str]) -> ClipPaths:
    """The paths of the clip of that name."""
    return ClipPaths(folder / f"{name}.json", {known: folder / f"{name}{FORMATS[known]}" for known in formats})


def is_whole(record_path: Path, record: Mapping[str, Any]) -> bool:
    """Whether every file that a clip's record names can be read next to it, with the content that was written."""
    files = record.get("files")
    if not isinstance(files, dict) or not files:
        return False
    folder, name = os.path.realpath(record_path.parent), record_path.stem
    try:
        for suffix, sha256 in files.items():
            path = f"{folder}/{name}{suffix}"
            if os.path.realpath(path) != path or file_sha256(Path(path)) != sha256:  # a link may lead anywhere
                return False
    except (OSError, ValueError):  # one is missing, or has a name that no file can have
        return False
    return True


def new_key() -> str:
    """A unique key for a workplace."""
    return secrets.token_hex(8)


def format_of(path: Path) -> str:
    """The format that a file's extension stands for; UserError if it stands for none."""
    for format_name, suffix in FORMATS.items():
        if suffix and path.suffix.lower() == suffix:
            return format_name
    endings = ", ".join(filter(None, FORMATS.values()))
    raise UserError(f"a clip can't be saved as {path.name!r}: give a name ending in one of {endings}")


@contextmanager
def clip_writer(
    format_name: str, path: Path, fps: float, quality: int, provenance: Provenance
) -> Iterator[Callable[[Pixels], None]]:
    """A function that writes a clip's frames, chunk by chunk, uint8 (n, H, W, 3) in RGB, in one of `FORMATS`.

    An animated GIF or WebP is written once all frames have come, since its colours are chosen from all of them.
    """
    if format_name == "mp4":
        with video_writer(path, fps, quality, provenance) as write:
            yield lambda chunk: _each(write, chunk)
    elif format_name == "frames":
        yield frames_writer(path, quality, provenance)
    else:
        kept: list[Pixels] = []
        yield kept.append
        if format_name == "gif":
            write_gif(path, np.concatenate(kept), fps, provenance)
        else:
            write_webp(path, np.concatenate(kept), fps, quality, provenance)


def _each(write: Callable[[Pixels], None], chunk: Pixels) -> None:
    for frame in chunk:
        write(frame)


def _describe(aside: Path) -> dict[str, str]:
    """SHA-256 of every file that was written, by what follows the clip's name in its path: .mp4, /0000.jpg ..."""
    stem = str(part_path(aside, ""))
    return {
        path.as_posix().removeprefix(stem): file_sha256(path) for path in sorted(aside.rglob("*")) if path.is_file()
    }
