"""Asks the hub (huggingface.co, or what HF_ENDPOINT names) about a repository and for its files, and believes nothing.

The address, the token and the HTTP client are huggingface_hub's. Its own requests would name files by what the hub
says, wait for as long as the hub asks and read answers of any length. Here every answer is checked, limited in length
and time, and none of its text is shown. httpx2 sends the token to no host but the hub, wherever a redirect leads.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import UserError
from .files import MAX_INDEX_BYTES, is_plain_name, is_safetensors
from .repository import Repository, is_commit

if TYPE_CHECKING:
    import httpx2

MAX_FILE_BYTES = 50 * 10**9  # five times the largest released file
_MAX_ANSWER_BYTES = 10 * 2**20  # of the description of a repository; that of one with 1,000 files has 0.3 MiB
_MAX_ANSWER_SECONDS = 60
_LEAST_BYTES = 1024  # that must come within each timeout, or the connection counts as stalled
_OK, _PARTIAL, _NO_SUCH_RANGE = 200, 206, 416
_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS, _SERVER_ERROR = 408, 429, 500


class UnreachableError(UserError):
    """The hub does not answer, or what answers is not the hub. Another try may go better."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository. `digest`: its SHA-256 (64 hexadecimal digits), or git's SHA-1 of a small file (40)."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Listing:
    """The files of a repository at a commit, by name, with what the hub says of each."""

    repository: Repository
    commit: str
    entries: Mapping[str, Mapping[str, Any]]

    def file(self, name: str) -> RemoteFile:
        """What to fetch, and how to check it. Raises UserError where the hub's word on that is missing or is no use."""
        entry = self.entries[name]
        stored = entry.get("lfs")  # large files: kept outside git, named by their SHA-256
        if isinstance(stored, dict):
            digest, size, digits = stored.get("sha256"), stored.get("size"), 64
        else:
            digest, size, digits = entry.get("blobId"), entry.get("size"), 40
        is_digest = isinstance(digest, str) and re.fullmatch(rf"[0-9a-f]{{{digits}}}", digest)
        if not is_digest or (digits < 64 and is_safetensors(Path(name))):
            raise UserError(
                f"{self.repository} gives no SHA-256 for {name}, so it could not be checked: download the file from"
                f" {self.repository.page} if you trust it, and name it with --checkpoint"
            )
        if type(size) is not int or size < 0:
            raise not_the_hub(self.repository)
        limit = MAX_FILE_BYTES if is_safetensors(Path(name)) else MAX_INDEX_BYTES
        if size > limit:
            raise UserError(
                f"{name} of {self.repository} has more than {limit / 1e9:.2g} GB, as no version's has: name another"
                " repository"
            )
        return RemoteFile(name, size, str(digest))


def list_files(repository: Repository) -> Listing:
    """What a repository holds. Raises UnreachableError, and UserError where the hub refuses."""
    from huggingface_hub import constants

    revision = quote(repository.revision, safe="")
    url = f"{constants.ENDPOINT}/api/models/{repository.id}/revision/{revision}?blobs=true"
    answer, end = bytearray(), time.monotonic() + _MAX_ANSWER_SECONDS
    timeout = constants.HF_HUB_ETAG_TIMEOUT
    with requested(repository, url, timeout=timeout) as response:
        for piece in received(repository, response, timeout=timeout):
            answer += piece
            if len(answer) > _MAX_ANSWER_BYTES or time.monotonic() > end:
                raise not_the_hub(repository)
    try:
        content = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise not_the_hub(repository) from error
    commit, entries = (content.get("sha"), content.get("siblings")) if isinstance(content, dict) else (None, None)
    if not (isinstance(commit, str) and is_commit(commit) and isinstance(entries, list)):
        raise not_the_hub(repository)
    if not all(isinstance(entry, dict) and isinstance(entry.get("rfilename"), str) for entry in entries):
        raise not_the_hub(repository)
    named = {entry["rfilename"]: entry for entry in entries}
    return Listing(repository, commit, {name: named[name] for name in named if _is_plain_path(name)})


@contextmanager
def requested(repository: Repository, url: str, *, timeout: float, start: int = 0) -> Iterator[httpx2.Response]:
    """The hub's answer to a request for what is at the address, from byte `start` on, its body still to be received.

    Its status is 200 for the whole; where `start` isn't 0 also 206 for the rest, or 416 where there is no such byte.
    Raises UnreachableError, and UserError where the hub refuses.
    """
    import httpx2
    from huggingface_hub import constants, get_session, get_token
    from huggingface_hub.errors import OfflineModeIsEnabled

    headers = {"User-Agent": "sgm", "Accept-Encoding": "identity"}
    if not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN and (token := get_token()):
        headers["Authorization"] = f"Bearer {token}"
    if start:
        headers["Range"] = f"bytes={start}-"
    with ExitStack() as open_streams:
        try:
            stream = get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True)
            response = open_streams.enter_context(stream)
        except OfflineModeIsEnabled as error:
            raise UnreachableError(
                f"{repository} is not in the cache, and HF_HUB_OFFLINE forbids fetching it: unset that variable"
            ) from error
        except (httpx2.RequestError, httpx2.InvalidURL, ValueError, OverflowError) as error:  # the last: odd redirects
            raise cannot_be_reached(repository, type(error).__name__) from error
        if response.status_code not in ({_OK, _PARTIAL, _NO_SUCH_RANGE} if start else {_OK}):
            raise _refusal(repository, response)
        yield response


def received(repository: Repository, response: httpx2.Response, *, timeout: float) -> Iterator[bytes]:
    """An answer's body, piece by piece as it comes. Raises UnreachableError where the connection breaks or stalls."""
    import httpx2

    came, since = 0, time.monotonic()
    try:
        for piece in response.iter_raw():
            yield piece
            came += len(piece)
            if time.monotonic() - since > timeout:
                if came < _LEAST_BYTES:
                    raise cannot_be_reached(repository, "it sends next to nothing")
                came, since = 0, time.monotonic()
    except httpx2.RequestError as error:
        raise cannot_be_reached(repository, type(error).__name__) from error


def cannot_be_reached(repository: Repository, reason: str) -> UnreachableError:
    """The error for a connection that fails."""
    return UnreachableError(
        f"{repository} can't be fetched, as the hub can't be reached ({reason}): check the connection and run this"
        " again; what has come is kept"
    )


def not_the_hub(repository: Repository) -> UnreachableError:
    """The error for an answer that the hub would not give."""
    return UnreachableError(
        f"{repository} can't be fetched, as what answers is not the hub: log in to the network if it asks for that in a"
        " browser, unset HF_ENDPOINT if it is set, and run this again"
    )


def _is_plain_path(name: str) -> bool:
    """Whether it is a plain name, or one in a folder of plain names: nothing else is ever needed."""
    return all(map(is_plain_name, name.split("/")))


def _refusal(repository: Repository, response: httpx2.Response) -> UserError:
    """What to do about an answer that brings nothing, by its status and the hub's X-Error-Code."""
    from huggingface_hub import get_token

    status, code = response.status_code, response.headers.get("X-Error-Code")
    log_in = (
        "then" if get_token() else "then log in with `hf auth login`, or set HF_TOKEN to a token of your account, and"
    )
    if code == "GatedRepo":
        return UserError(
            f"{repository.id} asks for its licence to be accepted: do so on {repository.page}, {log_in} run this again"
        )
    if code == "RevisionNotFound":
        return UserError(f"{repository.id} has no revision {repository.revision!r}: see {repository.page}")
    if code == "EntryNotFound":
        return UserError(f"{repository} was changed while it was fetched: run this again")
    if code == "RepoNotFound" or status == 401:  # the hub says so of private ones too
        return UserError(
            f"there is no repository {repository.id}, or it is not open to your account: check its name on"
            f" {repository.page}, {log_in} run this again"
        )
    if status in (_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS) or status >= _SERVER_ERROR:
        return UnreachableError(f"the hub refuses {repository} (HTTP status {status}): try again later")
    advice = f"see whether your token may read {repository.page}" if status == 403 else "try again later"
    return UserError(f"the hub refuses {repository} (HTTP status {status}): {advice}")
