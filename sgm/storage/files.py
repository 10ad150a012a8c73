"""Files and folders: where the program's own are and the user's; written whole or not at all; read only if regular.

Bundled files are next to `sgm/` in a checkout and inside it, in `sgm/bundled/`, once installed; the
`[tool.hatch.build]` tables of pyproject.toml put them there. Folders may be shared with others, so writing follows no
links, and nothing is read that might never end: regular files only, up to a limit, or for their SHA-256.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

PACKAGE = Path(__file__).resolve().parent.parent
INSTALLED_FILES = PACKAGE / "bundled"


def is_checkout() -> bool:
    """Whether the package runs from the project's folder, an editable installation included."""
    return not INSTALLED_FILES.is_dir()


def config_folder() -> Path:
    """`VERSION.yaml` of each model version."""
    return _bundled("configs")


def training_config_folder() -> Path:
    """`NAME.yaml` of each training."""
    return config_folder() / "training"


def example_folder() -> Path:
    """The images that clips are made from if none is given."""
    return _bundled("assets")


def bundled_checkpoint_folder() -> Path:
    """The bundled weights; in a checkout also those that the user puts next to them."""
    return _bundled("checkpoints")


def user_checkpoint_folder() -> Path:
    """Where users put weights: the project's own folder in a checkout, else one in the user's data folder.

    The latter is `~/.local/share/sgm/checkpoints` on Linux (or under XDG_DATA_HOME) and the system's equivalent
    elsewhere: an installed package's own folder may be read-only, and an upgrade empties it.
    """
    return bundled_checkpoint_folder() if is_checkout() else _user_data() / "checkpoints"


def checkpoint_folders() -> tuple[Path, ...]:
    """Where weights are looked for, in this order: bundled ones can't be overridden from outside."""
    return bundled_checkpoint_folder(), _user_data() / "checkpoints"


def output_folder(*names: str) -> Path:
    """Where results go by default: `outputs/` in the current folder."""
    return Path("outputs", *names)


def _bundled(name: str) -> Path:
    return (PACKAGE.parent if is_checkout() else INSTALLED_FILES) / name


def _user_data() -> Path:
    import platformdirs  # only needed to look for weights

    return platformdirs.user_data_path("sgm", appauthor=False)


MAX_DEPTH = 20  # of JSON
MAX_DIGITS = 20  # of a whole number in JSON; 64-bit numbers have at most as many


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file next to the path, then move it there, so that a partial file is never seen.

    Anything already at the temporary file's name, such as a link, is removed first.
    """
    aside = path.with_name(f".partial-{path.name}")
    remove(aside)
    try:
        aside.touch(exist_ok=False)
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, a link (never what it points to), or a folder with all its contents, if it exists."""
    if is_real_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_real_folder(path: Path) -> bool:
    """Whether the path is a folder, rather than a link to one."""
    return stat.S_ISDIR(_mode(path))


def is_real_file(path: Path) -> bool:
    """Whether the path is a regular file, rather than a link to one, a FIFO, a device or a socket."""
    return stat.S_ISREG(_mode(path))


def is_other_than_file(path: Path) -> bool:
    """Whether there is something other than a regular file at the path; a link is something other."""
    return bool(mode := _mode(path)) and not stat.S_ISREG(mode)


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading bytes; OSError for anything but a regular file, such as a FIFO or a device."""
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115  # for the caller to close
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return file


def read_text(path: Path, max_bytes: int) -> str:
    """The text of a UTF-8 file. Raises OSError if it is larger or isn't a regular file; UnicodeDecodeError."""
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"Larger than {max_bytes:,} bytes", str(path))
    return content.decode()


def read_json(path: Path, max_bytes: int) -> Any:
    """The content of an untrusted JSON file. Raises OSError as `read_text` does.

    Raises ValueError for anything but JSON in UTF-8, for nesting deeper than `MAX_DEPTH`, and for numbers that are
    infinite, NaN or longer than `MAX_DIGITS`.
    """
    text = read_text(path, max_bytes)
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _held(outer)]
    if level:
        raise ValueError("it is nested too deeply")
    return value


def file_sha256(path: Path) -> str:
    """SHA-256 of a regular file in hexadecimal, read piece by piece, and only once unless the file changes."""
    status = path.stat()
    return _file_sha256(path.resolve(), status.st_size, status.st_mtime_ns)


def describe_file(path: Path | None) -> dict[str, str | None]:
    """A file's absolute path and SHA-256, both None for data from memory."""
    if path is None:
        return {"path": None, "sha256": None}
    return {"path": str(path.resolve()), "sha256": file_sha256(path)}


@cache
def _file_sha256(path: Path, size: int, modified_ns: int) -> str:
    """Size and modification time are part of the cache's key, so that a changed file is read again."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # else opening a FIFO waits for a writer


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"it has a number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"it has the number {digits[:MAX_DIGITS]}")
    return number


def _held(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _mode(path: Path) -> int:
    """The mode of what is at the path, not following links; 0 if there is nothing."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0
