"""`python -m sgm.watermark FILE ...`: says whether pictures, folders of frames and videos carry the watermark."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..outputs.video import read_frames
from ..parameters.flags import run_command
from ..progress import Progress

if TYPE_CHECKING:
    from .embedding import Frame

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")  # of what counts as a frame in a folder

HELP = """\
Says whether pictures, folders of frames and videos carry the watermark that marks generated clips.

usage: python -m sgm.watermark FILE_OR_FOLDER ...

For each it prints a line: how many of the watermark's 48 bits agree, by majority over the frames.
The exit code is 0 where all carry it, 1 where some don't, 2 where one can't be read.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words of the command line ask for; returns the exit code."""
    marked: list[bool] = []
    exit_code = run_command(words, HELP, lambda words: marked.extend(look_at(parse(words))))
    return exit_code or int(not all(marked))


def parse(words: Sequence[str]) -> list[Path]:
    """The files and folders that the words name. Raises UserError where one is missing."""
    if not words:
        raise UserError("nothing to look at: name pictures, folders of frames or videos, as in clip.mp4")
    for word in words:
        if word.startswith("-"):
            raise UserError(f"there is no parameter {word!r}: give names of files alone (a file: ./{word})")
        if not (Path(word).is_file() or Path(word).is_dir()):
            raise UserError(f"there is no file or folder {word}: check the path")
    return [Path(word) for word in words]


def look_at(paths: Sequence[Path]) -> Iterator[bool]:
    """Whether each carries the watermark, after printing a line about it. Raises UserError for what can't be read."""
    from .reading import NEEDED_BITS, read_watermark

    progress = Progress()
    for path in progress.track("reading", paths, unit="file"):
        try:
            reading = read_watermark(frames_of(path))
        except OSError as error:
            raise UserError(f"{path} can't be read as pictures or as a video: {error}") from error
        if reading.num_frames == 0:
            found = "not marked: its pictures are too small to carry the watermark"
        else:
            frames = f"{reading.num_frames} frame{'s' if reading.num_frames > 1 else ''}"
            found = f"{'marked' if reading.is_marked else 'not marked'}: {reading.agreeing_bits} of 48 bits agree"
            found += f" over {frames}" + ("" if reading.is_marked else f", {NEEDED_BITS} are needed")
        progress.print(f"{path}: {found}")
        yield reading.is_marked


def frames_of(path: Path) -> Iterator[Frame]:
    """The frames in a picture, a moving picture, a video or a folder of pictures, one by one. Raises OSError."""
    import numpy as np
    from PIL import Image, ImageSequence, UnidentifiedImageError

    if path.is_dir():
        pictures = [inside for inside in sorted(path.iterdir()) if inside.suffix.lower() in FRAME_SUFFIXES]
        if not pictures:
            raise UserError(f"{path} holds no frames: give a folder of pictures ({', '.join(FRAME_SUFFIXES)})")
        for picture in pictures:
            yield from frames_of(picture)
        return
    try:
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                yield np.asarray(frame.convert("RGB"))
    except UnidentifiedImageError:
        yield from read_frames(path)
    except Image.DecompressionBombError as error:
        raise OSError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
