"""Fetches files of a repository into the cache of huggingface_hub, and goes on with what an earlier run left of them.

huggingface_hub downloads to a name of the process's own, which is lost when the process is killed and deleted when it
fails: 10 GB begin anew. Here an unfinished file is `blobs/DIGEST.incomplete`, which whoever fetches next completes, and
which `hf cache prune` deletes where nobody does. The cache's layout is the one that huggingface_hub documents in
"Understand caching", so what is fetched here is found by it, and the other way round:

    models--OWNER--NAME/blobs/DIGEST
    models--OWNER--NAME/snapshots/COMMIT/FILE -> ../../blobs/DIGEST
    models--OWNER--NAME/refs/REVISION            holds COMMIT
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..storage.files import file_sha256, write_whole
from .hub_client import RemoteFile, UnreachableError, cannot_be_reached, received, requested
from .repository import Repository

if TYPE_CHECKING:
    from huggingface_hub.utils import tqdm

_TRIES = 5  # before a transfer that brings nothing new is given up
_PROGRESS = 64 * 1024  # bytes that count as something new
_PARTIAL, _NO_SUCH_RANGE = 206, 416  # HTTP statuses
_SHA256_DIGITS = 64


def cache_folder(repository: Repository) -> Path:
    """The repository's part of the cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.id.replace('/', '--')}"


def fetch_files(repository: Repository, commit: str, files: Sequence[RemoteFile]) -> Path:
    """Put files into the cache, whole and as the hub announced them, or raise; returns the folder of the commit.

    What is in the cache is checked too, and fetched anew where it is damaged. Processes that fetch one file take turns,
    those of huggingface_hub among them, as far as the file system of the cache keeps flock. Raises UserError, and
    OSError where the disk fails; what has come is kept then.
    """
    snapshot = cache_folder(repository) / "snapshots" / commit
    _check_room(repository, snapshot, files)
    for file in files:
        _fetch(repository, snapshot, file)
    if not repository.is_at_commit:
        reference = cache_folder(repository) / "refs" / repository.revision
        if not (reference.is_file() and reference.read_text() == commit):
            reference.parent.mkdir(parents=True, exist_ok=True)
            write_whole(reference, lambda aside: aside.write_text(commit))
    return snapshot


def is_sha256(name: str) -> bool:
    """Whether a name of the cache is a SHA-256, as those of large files are."""
    return len(name) == _SHA256_DIGITS and set(name) <= set("0123456789abcdef")


def _incomplete(repository: Repository, file: RemoteFile) -> Path:
    return cache_folder(repository) / "blobs" / f"{file.digest}.incomplete"


def _check_room(repository: Repository, snapshot: Path, files: Sequence[RemoteFile]) -> None:
    """Raises UserError where the disk has no room for what is missing."""
    from huggingface_hub import constants

    missing = 0
    for file in files:
        incomplete = _incomplete(repository, file)
        if not (snapshot / file.name).is_file():
            missing += file.size - (incomplete.stat().st_size if incomplete.is_file() else 0)
    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if missing > free:
        raise UserError(
            f"{missing / 1e9:.1f} GB of {repository} are to be fetched, and {cache} has room for {free / 1e9:.1f} GB:"
            " make room, or set HF_HOME to a folder of a larger disk"
        )


def _fetch(repository: Repository, snapshot: Path, file: RemoteFile) -> None:
    from huggingface_hub import constants

    link = snapshot / file.name
    if _is_whole(link, file):  # asked first, so that a cache that can't be written to is enough
        return
    incomplete = _incomplete(repository, file)
    blob = incomplete.with_suffix("")
    lock = Path(constants.HF_HUB_CACHE, ".locks", cache_folder(repository).name, f"{file.digest}.lock")
    for path in (link, blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _in_turn(lock, file.name):
        if _is_whole(link, file):
            return
        if not _is_whole(blob, file):
            if blob.exists() or link.exists():
                _say(f"{file.name} is damaged in the cache: fetching it anew")
            blob.unlink(missing_ok=True)
            _say(f"fetching {file.name} ({file.size / 1e9:.2f} GB) into {constants.HF_HUB_CACHE}")
            _fetch_whole(repository, snapshot.name, file, incomplete)
            incomplete.replace(blob)
        link.unlink(missing_ok=True)
        if not constants.HF_HUB_DISABLE_SYMLINKS:
            with suppress(OSError):  # Windows allows links to developers only; the file itself is put there then
                link.symlink_to(os.path.relpath(blob, link.parent))
        if not link.is_symlink():
            blob.replace(link)


def _is_whole(path: Path, file: RemoteFile) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    if len(file.digest) == _SHA256_DIGITS:
        return file_sha256(path) == file.digest
    return hashlib.sha1(b"blob %d\0" % file.size + path.read_bytes()).hexdigest() == file.digest  # git's


def _fetch_whole(repository: Repository, commit: str, file: RemoteFile, incomplete: Path) -> None:
    """Complete what is kept, or begin anew where that can't be a part of the file or turns out not to be."""
    incomplete.touch()
    kept = incomplete.stat().st_size
    if kept > file.size:
        incomplete.write_bytes(b"")
    _complete(repository, commit, file, incomplete)
    if kept and not _is_whole(incomplete, file):
        _say(f"what was kept of {file.name} is damaged: fetching it anew")
        incomplete.write_bytes(b"")
        _complete(repository, commit, file, incomplete)
    if not _is_whole(incomplete, file):
        incomplete.unlink()
        raise UserError(f"{file.name} was damaged on the way (it is not what the hub announced): run the same again")


def _complete(repository: Repository, commit: str, file: RemoteFile, incomplete: Path) -> None:
    """Append to a file what it lacks, and go on after each break of the connection while any of it brings something."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import tqdm

    url = hf_hub_url(repository.id, file.name, revision=commit)
    tries, furthest = _TRIES, incomplete.stat().st_size
    with tqdm(total=file.size, initial=furthest, desc=file.name, unit="B", unit_scale=True, disable=None) as bar:
        while incomplete.stat().st_size < file.size:
            try:
                _append(repository, url, file, incomplete, bar)
            except UnreachableError:  # noqa: PERF203 - each try takes seconds
                reached = incomplete.stat().st_size
                tries = _TRIES if reached >= furthest + _PROGRESS else tries - 1
                furthest = max(furthest, reached)
                if tries == 0:
                    raise
                time.sleep(1)


def _append(repository: Repository, url: str, file: RemoteFile, incomplete: Path, bar: tqdm) -> None:
    """Append what one transfer brings of the rest. Raises UnreachableError where that isn't all of it."""
    from huggingface_hub import constants

    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with incomplete.open("r+b") as output:
        kept = output.seek(0, os.SEEK_END)
        with requested(repository, url, timeout=timeout, start=kept) as response:
            if kept and response.status_code != _PARTIAL:  # the server sends the whole, or has another file
                kept = output.seek(0)
                output.truncate()
            if response.status_code == _NO_SUCH_RANGE:
                raise cannot_be_reached(repository, "the file ends early")
            bar.update(kept - bar.n)
            for piece in received(repository, response, timeout=timeout):
                kept += len(piece)
                if kept > file.size:
                    output.truncate(0)
                    raise UserError(
                        f"more comes of {file.name} than the {file.size:,} bytes that the hub announced: run the same"
                        " again"
                    )
                output.write(piece)
                output.flush()  # so that a killed process loses nothing of it
                bar.update(len(piece))
        if kept < file.size:
            raise cannot_be_reached(repository, "the file ends early")


@contextmanager
def _in_turn(lock: Path, name: str) -> Iterator[None]:
    """Hold the lock that huggingface_hub itself takes for the file; reports it where that takes a while."""
    from huggingface_hub.utils import WeakFileLock

    with ExitStack() as held:
        try:
            held.enter_context(WeakFileLock(lock, timeout=0.5))
        except TimeoutError:
            _say(f"another process is fetching {name}: waiting for it")
            held.enter_context(WeakFileLock(lock))
        yield


def _say(text: str) -> None:
    """A line on stderr, above the bar."""
    from huggingface_hub.utils import tqdm

    tqdm.write(text, file=sys.stderr)
