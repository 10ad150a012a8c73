"""Finding image files: one by its path, those of a folder with or without its subfolders, those that fit a pattern."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sgm.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi")

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".heic", ".heif", ".gif", ".bmp", ".tif", ".tiff",
)  # fmt: skip
ALLOWED = ", ".join(IMAGE_SUFFIXES)
MAX_ENTRIES = 500_000  # looked at below a folder, images or not: a few seconds' work, where all of `/` takes minutes


def check_image_path(path: Path) -> None:
    """Raises UserError where no file is there, or where it isn't an image by its suffix."""
    try:
        is_file = path.is_file()
    except (OSError, ValueError) as error:  # a name too long; a character that no name has
        raise UserError(f"{path} can't be read ({error}): give the path of an image") from error
    if not is_file:
        raise UserError(f"{path} does not exist{' as a file' if path.exists() else ''}: give the path of an image")
    if not _has_image_suffix(path) and path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UserError(f"{path} is not an image by its name: it must end in one of {ALLOWED}, or be a video")


def images_in(
    folder: Path,
    *,
    recursive: bool = False,
    leave_out: Path | None = None,
    warn: Callable[[str], object] = lambda line: None,
) -> list[Path]:
    """The image files in a folder, and with `recursive` in its subfolders, sorted.

    Suffixes count in any case; hidden files (such as the `._photo.jpg` that macOS leaves) and hidden folders do not,
    nor does what is in the folder `leave_out`. Links to folders are not followed. `warn` is called with a line about
    the other files.

    Raises:
        UserError: a folder can't be listed, there are no images, or far too many files.
    """
    avoided = leave_out.resolve() if leave_out else None
    images: list[Path] = []
    count = _counter(folder)
    for parent, subfolders, names in os.walk(folder, onerror=_tell):
        count(len(subfolders) + len(names))
        images += [Path(parent, name) for name in names]
        subfolders[:] = [name for name in subfolders if recursive and not _is_avoided(Path(parent, name), avoided)]
    others = Counter(path.suffix.lower() or "no suffix" for path in images if _is_other(path))
    images = sorted(path for path in images if _is_visible(path, IMAGE_SUFFIXES))
    if others and images:
        most = sorted(others.items(), key=lambda it: (-it[1], it[0]))[:5]
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in most)
        warn(f"not taken from {folder}, as they aren't images: {kinds}" + (", ..." if len(others) > 5 else ""))
    if not images:
        raise UserError(f"no images in the folder {folder}: put some there that end in one of {ALLOWED}")
    return images


def images_like(pattern: Path, *, leave_out: Path | None = None) -> list[Path]:
    """The image files that fit a pattern with `*`, `?`, `[...]` and, for folders of any depth, `**`; sorted.

    Videos count where the pattern itself ends in a video's suffix. Hidden files and what is in the folder `leave_out`
    don't count. `**` follows no links, and folders that can't be listed are passed by, as in a shell.

    Raises:
        UserError: nothing fits, or there are far too many files to look at.
    """
    avoided = leave_out.resolve() if leave_out else None
    suffixes = VIDEO_SUFFIXES if pattern.suffix.lower() in VIDEO_SUFFIXES else IMAGE_SUFFIXES
    base, rest = _split(pattern)
    found = set(_matches(base, rest, _counter(base)))  # patterns with more than one ** find a path in more than one way
    images = sorted(path for path in found if _is_visible(path, suffixes) and not _is_within(path, avoided))
    if not images:
        if not re.search(r"[*?]", str(pattern)):
            raise UserError(f"{pattern} does not exist, and as a pattern it fits no image: check the path")
        raise UserError(f"nothing fits the pattern {pattern}: it must match images that end in one of {ALLOWED}")
    return images


def is_folder(path: Path) -> bool:
    """Whether a folder is there; false too for what can't be a path at all, such as a name too long."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_pattern(path: Path) -> bool:
    """Whether a path that is not there holds the signs of a pattern."""
    return glob.has_magic(str(path)) and not os.path.lexists(path)


def fixed_part(pattern: Path) -> Path:
    """The folder that all matches of a pattern are in: what comes before its first sign."""
    return _split(pattern)[0]


def _split(pattern: Path) -> tuple[Path, list[str]]:
    """A pattern's fixed folder, and the parts of the pattern below it.

    A part with a pattern's signs is fixed too where a folder of that very name is there, or where all signs are
    escaped, as in `dir [[]v1]`.
    """
    base, parts = Path(), list(pattern.parts)
    while len(parts) > 1:
        unescaped = re.sub(r"\[([*?[])\]", r"\1", parts[0])
        if not glob.has_magic(parts[0]) or is_folder(base / parts[0]):
            base /= parts.pop(0)
        elif not glob.has_magic(unescaped.replace("[", "")) and is_folder(base / unescaped):
            base /= unescaped
            del parts[0]
        else:
            break
    return base, parts


def _matches(folder: Path, parts: Sequence[str], count: Callable[[int], None]) -> Iterator[Path]:
    """What fits the parts of a pattern below a folder. Unlike `glob` it counts its steps and follows no circles."""
    part, *rest = parts
    if part == "**":
        yield from _matches(folder, rest or ["*"], count)
        for entry in _entries(folder, count):
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from _matches(folder / entry.name, parts, count)
        return
    if glob.has_magic(part):
        may_be_hidden = part.startswith(".")
        names = [entry.name for entry in _entries(folder, count) if may_be_hidden or not entry.name.startswith(".")]
        names = fnmatch.filter(names, part)
    else:
        names = [part]
    for path in (folder / name for name in names):
        if not rest:
            yield path
        elif is_folder(path):
            yield from _matches(path, rest, count)


def _entries(folder: Path, count: Callable[[int], None]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            listed = list(entries)
    except OSError:
        return []
    count(len(listed))
    return listed


def _counter(folder: Path) -> Callable[[int], None]:
    """What counts entries below a folder, and raises UserError above `MAX_ENTRIES`."""
    looked_at = 0

    def count(entries: int) -> None:
        nonlocal looked_at
        looked_at += entries
        if looked_at > MAX_ENTRIES:
            raise UserError(f"{folder} holds over {MAX_ENTRIES:,} files: give a smaller folder, or a list of images")

    return count


def _tell(error: OSError) -> None:
    raise UserError(f"{error.filename} can't be read ({error.strerror}): give a folder that you may read") from error


def _is_visible(path: Path, suffixes: Sequence[str]) -> bool:
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


def _is_other(path: Path) -> bool:
    return not (_has_image_suffix(path) or path.name.startswith("."))


def _is_avoided(folder: Path, avoided: Path | None) -> bool:
    return folder.name.startswith(".") or (avoided is not None and folder.resolve() == avoided)


def _is_within(path: Path, avoided: Path | None) -> bool:
    return avoided is not None and path.resolve().is_relative_to(avoided)


def _has_image_suffix(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES
