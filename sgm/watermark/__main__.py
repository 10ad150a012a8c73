"""`python -m sgm.watermark FILE ...`: says whether pictures, folders of frames and videos carry the watermark."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..outputs.video import read_frames
from ..parameters.command_line import Command, run
from ..progress import Progress

if TYPE_CHECKING:
    from .embedding import Frame

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")  # of what counts as a frame in a folder
PURPOSE = """\
Says whether pictures, folders of frames and videos carry the watermark that marks generated clips:
of each, how many of the watermark's 48 bits agree, by majority over the frames. The exit code is 0
where all carry it, 1 where some don't, and 2 where one can't be read."""
ALL_MARKED, SOME_UNMARKED = 0, 1


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words of the command line ask for; returns the exit code (see `command_line.run`)."""
    words = sys.argv[1:] if words is None else words
    first_flag = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    names, flags = words[:first_flag], words[first_flag:]
    command = Command[list[Path]](
        usage="python -m sgm.watermark FILE_OR_FOLDER ...",
        purpose=PURPOSE,
        kinds=(),
        make=lambda given: find(names, given),
    )
    return run(command, look_at, flags)


def find(names: Sequence[str], given: Mapping[str, str]) -> list[Path]:
    """The files and folders of these names. Raises UserError where one is missing, or where parameters are given."""
    for parameter in given:
        raise UserError(f"there is no parameter {parameter!r}: give names of files, of one like -x.png ./-x.png")
    if not names:
        raise UserError("nothing to look at: name pictures, folders of frames or videos, as in clip.mp4")
    for name in names:
        if not (Path(name).is_file() or Path(name).is_dir()):
            raise UserError(f"there is no file or folder {name}: check the path")
    return [Path(name) for name in names]


def look_at(paths: Sequence[Path]) -> int:
    """Print a line about each, and return the exit code. Raises UserError for what can't be read."""
    from .reading import NEEDED_BITS, read_watermark

    progress, exit_code = Progress(), ALL_MARKED
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
        if not reading.is_marked:
            exit_code = SOME_UNMARKED
    return exit_code


def frames_of(path: Path) -> Iterator[Frame]:
    """The frames in a picture, a moving picture, a video or a folder of pictures, one by one. Raises OSError."""
    import numpy as np
    from PIL import Image, ImageSequence, UnidentifiedImageError

    if path.is_dir():
        inside = [file for file in sorted(path.iterdir()) if file.is_file()]
        pictures = [file for file in inside if file.suffix.lower() in FRAME_SUFFIXES]
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
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        raise OSError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
