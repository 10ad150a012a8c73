"""Files that are whole or absent, and their SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside the path, then put it in the path's place, so that no half file is ever there."""
    aside = path.with_name(f".partial-{path.name}")
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read piece by piece, once for as long as the file doesn't change."""
    status = path.stat()
    return _file_sha256(path.resolve(), status.st_size, status.st_mtime_ns)


def describe_file(path: Path | None) -> dict[str, str | None]:
    """A file's absolute path and SHA-256, both None for what came from memory."""
    if path is None:
        return {"path": None, "sha256": None}
    return {"path": str(path.resolve()), "sha256": file_sha256(path)}


@cache
def _file_sha256(path: Path, size: int, modified_ns: int) -> str:
    """The size and the time of the last change are there to tell apart a file's contents over time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
