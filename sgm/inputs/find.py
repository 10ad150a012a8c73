"""Finding image files: one by its path, those of a folder with or without its subfolders, those that fit a pattern."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from sgm.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
ALLOWED = ", ".join(IMAGE_SUFFIXES)


def check_image_path(path: Path) -> None:
    """Raises UserError where no file is there, or where it isn't an image by its suffix."""
    try:
        is_file = path.is_file()
    except (OSError, ValueError) as error:  # a name too long; a character that no name has
        raise UserError(f"{path} can't be read ({error}): give the path of an image") from error
    if not is_file:
        raise UserError(f"{path} does not exist: give the path of an image")
    if not _has_image_suffix(path):
        raise UserError(f"{path} is not an image by its name: it must end in one of {ALLOWED}")


def images_in(folder: Path, *, recursive: bool = False, leave_out: Path | None = None) -> list[Path]:
    """The image files in a folder, and with `recursive` in its subfolders, sorted.

    Suffixes count in any case; hidden files (such as the `._photo.jpg` that macOS leaves) and hidden folders do not,
    nor does what is in the folder `leave_out`. Links to folders are not followed.

    Raises:
        UserError: a folder can't be listed, or there are no images.
    """
    avoided = leave_out.resolve() if leave_out else None
    images: list[Path] = []
    for parent, subfolders, names in os.walk(folder, onerror=_tell):
        images += [Path(parent, name) for name in names]
        subfolders[:] = [name for name in subfolders if recursive and not _is_avoided(Path(parent, name), avoided)]
    images = sorted(path for path in images if _is_visible_image(path))
    if not images:
        raise UserError(f"no images in the folder {folder}: put some there that end in one of {ALLOWED}")
    return images


def images_like(pattern: Path, *, leave_out: Path | None = None) -> list[Path]:
    """The image files that fit a pattern with `*`, `?`, `[...]` and, for folders of any depth, `**`; sorted.

    Hidden files and what is in the folder `leave_out` don't count. Raises UserError where nothing fits.
    """
    avoided = leave_out.resolve() if leave_out else None
    # Patterns with more than one ** find a path in more than one way.
    found = set(map(Path, glob.glob(str(pattern), recursive=True)))  # noqa: PTH207  # Path.glob wants a base
    images = sorted(path for path in found if _is_visible_image(path) and not _is_within(path, avoided))
    if not images:
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
    parts = pattern.parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _tell(error: OSError) -> None:
    raise UserError(f"{error.filename} can't be read ({error.strerror}): give a folder that you may read") from error


def _is_visible_image(path: Path) -> bool:
    return _has_image_suffix(path) and not path.name.startswith(".") and path.is_file()


def _is_avoided(folder: Path, avoided: Path | None) -> bool:
    return folder.name.startswith(".") or (avoided is not None and folder.resolve() == avoided)


def _is_within(path: Path, avoided: Path | None) -> bool:
    return avoided is not None and path.resolve().is_relative_to(avoided)


def _has_image_suffix(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES
