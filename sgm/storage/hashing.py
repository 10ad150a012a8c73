"""SHA-256 of files, computed once for as long as they do not change."""

import hashlib
from functools import cache
from pathlib import Path


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
