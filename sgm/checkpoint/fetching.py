"""Fetches a file of a repository into the cache of huggingface_hub, and goes on with what an earlier run left of it.

huggingface_hub writes to a name of the process's own, which is lost when the process is killed and deleted when it
fails. Here an unfinished file is `blobs/SHA-256.incomplete`, which whoever fetches next completes, and which `hf cache
prune` deletes where nobody does. The transfer itself is huggingface_hub's over HTTP: its other way, Xet, begins every
file anew.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..errors import UserError
from ..storage.files import file_sha256

_TRIES = 5  # before a transfer that brings nothing new is given up; as many as huggingface_hub's own


def is_sha256(name: str) -> bool:
    """Whether a name is a SHA-256, as the hub and its cache name large files; small ones are named otherwise."""
    return re.fullmatch(r"[0-9a-f]{64}", name) is not None


def fetch_file(repository_id: str, name: str, commit: str) -> None:
    """Put a large file's content where `hf_hub_download` finds it, whole and as the hub announced it, or raise.

    Large are files that the hub names by their SHA-256; others are small, and left to `hf_hub_download`. What is in the
    cache is checked too, and fetched anew where it is damaged. Processes that fetch one file take turns, those of
    huggingface_hub among them, as far as the file system of the cache keeps flock. Raises UserError, and what
    huggingface_hub, httpx2 and the disk raise; what has come is kept then.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import are_symlinks_supported, repo_folder_name

    url = hf_hub_url(repository_id, name, revision=commit)
    announced = get_hf_file_metadata(url, retry_on_errors=True)
    sha256, size = announced.etag or "", announced.size
    if not is_sha256(sha256):
        return
    cache = Path(constants.HF_HUB_CACHE)
    folder = cache / repo_folder_name(repo_id=repository_id, repo_type="model")
    link = folder / "snapshots" / commit / name
    if _is_whole(link, sha256):  # asked first, as a cache that can't be written to will do then
        return
    target = folder / "blobs" / sha256 if are_symlinks_supported(cache) else link
    incomplete = folder / "blobs" / f"{sha256}.incomplete"
    lock = cache / ".locks" / folder.name / f"{sha256}.lock"
    for path in (target, incomplete, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _in_turn(lock, name):
        if _is_whole(target, sha256):
            return
        if target.exists():
            _say(f"{name} is damaged in the cache: fetching it anew")
            target.unlink()
        _fetch_whole(incomplete, url, size, sha256, name)
        incomplete.replace(target)


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


def _fetch_whole(incomplete: Path, url: str, size: int | None, sha256: str, name: str) -> None:
    """Complete what is kept, or begin anew where that can't be a part of it or turns out not to be."""
    kept = incomplete.stat().st_size if incomplete.exists() else 0
    if size is None or kept > size:
        incomplete.unlink(missing_ok=True)
    _complete(incomplete, url, size, name)
    if kept and not _is_whole(incomplete, sha256):
        _say(f"what was kept of {name} is damaged: fetching it anew")
        incomplete.unlink()
        _complete(incomplete, url, size, name)
    if not _is_whole(incomplete, sha256):
        incomplete.unlink()
        raise UserError(f"{name} was damaged on the way (its SHA-256 is not the hub's): run the same again")


def _complete(incomplete: Path, url: str, size: int | None, name: str) -> None:
    """Append to a file what it lacks, and go on after each break of the connection while any of it brings something."""
    import httpx2
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    incomplete.touch()
    _check_size(size, incomplete, name)
    tries = _TRIES
    while True:
        kept = incomplete.stat().st_size
        try:
            with incomplete.open("ab") as file:
                # The address redirects to another host, by a link that expires. httpx2 gives that host no token.
                http_get(
                    url,
                    file,
                    resume_size=kept,
                    expected_size=size,
                    headers=build_hf_headers(),
                    displayed_filename=name,
                )
            return
        except httpx2.ReadError:  # a reset; after all other breaks http_get goes on itself
            tries = _TRIES if incomplete.stat().st_size > kept else tries - 1
            if tries == 0:
                raise
            time.sleep(1)


def _check_size(size: int | None, incomplete: Path, name: str) -> None:
    """Raises UserError where the file can't be fetched for its size."""
    from huggingface_hub import constants

    if size is None:
        return
    if size > constants.MAX_HTTP_DOWNLOAD_SIZE:
        raise UserError(f"{name} has {size / 1e9:,.0f} GB, more than any version's weights: name another repository")
    missing, free = size - incomplete.stat().st_size, shutil.disk_usage(incomplete.parent).free
    if missing > free:
        raise UserError(
            f"{missing / 1e9:.1f} GB of {name} are to be fetched, and {incomplete.parent} has room for"
            f" {free / 1e9:.1f} GB: make room, or have HF_HOME name a folder of a larger disk"
        )


@contextmanager
def _in_turn(lock: Path, name: str) -> Iterator[None]:
    """Hold the lock that huggingface_hub itself takes for the file; says so where that takes a while."""
    from huggingface_hub.utils import WeakFileLock

    with ExitStack() as held:
        try:
            held.enter_context(WeakFileLock(lock, timeout=0.5))
        except TimeoutError:
            _say(f"another process is fetching {name}: waiting for it")
            held.enter_context(WeakFileLock(lock))
        yield


def _say(text: str) -> None:
    """A line on stderr, where huggingface_hub draws its bars and writes its own."""
    sys.stderr.write(f"{text}\n")
