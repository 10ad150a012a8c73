"""Weights in a repository of huggingface.co: those in the cache are used as they are; fetching has to be asked for.

The huggingface_hub package does the work: it knows the token (HF_TOKEN, or `hf auth login`), the cache (HF_HOME) and
the offline switch (HF_HUB_OFFLINE). Here is decided which files are needed, and every failure is told in a line;
`fetch_file` goes on with a transfer that was stopped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..config import RELEASES
from ..errors import UserError
from ..storage.files import file_sha256
from .fetching import fetch_file, is_sha256
from .files import COMPONENTS, SUFFIXES, Checkpoint, weight_files, weight_names

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ADDRESS = re.compile(r"(?P<id>\w[\w.-]*/\w[\w.-]*?)(@(?P<revision>\w[\w.-]*(/\w[\w.-]*)*))?")


@dataclass(frozen=True)
class Repository:
    """A repository of models, `owner/name`, at a branch, tag or commit; by default at its main branch."""

    id: str
    revision: str = "main"

    def __str__(self) -> str:
        return self.id if self.revision == "main" else f"{self.id}@{self.revision}"

    @property
    def page(self) -> str:
        """Where its licence is read and accepted."""
        return f"https://huggingface.co/{self.id}"


def read_address(text: str) -> Repository | None:
    """The repository that `owner/name` or `owner/name@revision` names; None for what can't be one."""
    match = _ADDRESS.fullmatch(text)
    if match is None or text.endswith(SUFFIXES):
        return None

    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(match["id"])
    except HFValidationError:
        return None
    return Repository(match["id"], match["revision"] or "main")


def find_cached(repository: Repository, version: str) -> Checkpoint | None:
    """The version's weights in the cache; None where not all of them are there. Never uses the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        # No file is asked for, so that the folder is given even where the rest of the repository isn't in it.
        snapshot = snapshot_download(
            repository.id, revision=repository.revision, local_files_only=True, allow_patterns=[]
        )
    except LocalEntryNotFoundError:
        return None
    try:
        return _checkpoint(repository, Path(snapshot), version)
    except UserError:  # a fetch that was stopped half-way
        return None


def fetch(repository: Repository, version: str) -> Checkpoint:
    """Fetch the version's weights into the cache, as far as they aren't there, and check what came.

    A commit that is whole in the cache needs no network, nor does any revision while the hub can't be reached. Raises
    UserError that says what to do about any failure; the next call goes on where that one stopped.
    """
    import httpx2
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    cached = find_cached(repository, version)
    if cached is not None and _is_damaged(cached):
        cached = None
    if cached is not None and _COMMIT.fullmatch(repository.revision):
        return cached
    with _telling_of_failures(repository):
        try:
            commit, all_names = _listing(repository)
        except (httpx2.RequestError, OfflineModeIsEnabled):
            if cached is None:
                raise
            return cached
        names = needed_files(all_names, version)
        if not names:
            raise UserError(
                f"{repository} has no weights for {version}: neither {version}.safetensors nor diffusers' folders"
                f" {', '.join(COMPONENTS)}; see {repository.page}"
            )
        paths = []
        for name in names:
            fetch_file(repository.id, name, commit)
            paths.append(Path(hf_hub_download(repository.id, name, revision=repository.revision)))  # links to it
    folder = Path(str(paths[0]).removesuffix(names[0]))
    if len({Path(str(path).removesuffix(name)) for path, name in zip(paths, names, strict=True)}) > 1:
        raise UserError(f"{repository} was changed while it was fetched: run the same again")
    return _checkpoint(repository, folder, version)


def _listing(repository: Repository) -> tuple[str, list[str]]:
    """The commit that the revision stands for, and the names of its files. Raises DecodingError for others' answers."""
    import httpx2
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(repository.id, revision=repository.revision)
        if not _COMMIT.fullmatch(info.sha or ""):
            raise ValueError(f"{info.sha!r} is no commit")
    except (ValueError, TypeError, KeyError) as error:  # what its parsing raises
        raise httpx2.DecodingError(str(error)) from error
    return str(info.sha), [file.rfilename for file in info.siblings or []]


def needed_files(names: Iterable[str], version: str) -> list[str]:
    """Which of a repository's files hold the version's weights; empty where some are missing.

    The file that is named after the version comes first, as Stability AI publishes them; then diffusers' folders; then
    a .safetensors file that is the only one, unless it is named after another version.
    """
    names = sorted(names)
    if f"{version}.safetensors" in names:
        return [f"{version}.safetensors"]
    by_component = [_files_of_component(names, component) for component in COMPONENTS]
    if all(by_component):
        return [name for files in by_component for name in files]
    alone = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    return alone if len(alone) == 1 and Path(alone[0]).stem not in RELEASES else []


def _files_of_component(names: list[str], component: str) -> list[str]:
    """The file with a component's weights, or its index and shards."""
    for wanted in weight_names(component):
        if f"{component}/{wanted}" in names:
            if wanted.endswith(".safetensors"):
                return [f"{component}/{wanted}"]
            fp16 = "fp16" in wanted
            shards = re.compile(rf"{component}/{COMPONENTS[component]}[\w.-]*-\d+-of-\d+[\w.-]*\.safetensors")
            return [f"{component}/{wanted}"] + [
                name for name in names if shards.fullmatch(name) and ("fp16" in name) == fp16
            ]
    return []


def _checkpoint(repository: Repository, folder: Path, version: str) -> Checkpoint:
    """The version's weights in a folder of the cache. Raises UserError where some are missing."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    files = needed_files(names, version)
    path = folder / files[0] if files and "/" not in files[0] else folder
    weight_files(path)
    return Checkpoint(path, repository.id, folder.name)


def _is_damaged(checkpoint: Checkpoint) -> bool:
    """Whether a file in the cache isn't what the hub announced: it is linked to, if large, by its SHA-256."""
    linked = {file: file.readlink().name for file in weight_files(checkpoint.path) if file.is_symlink()}
    return any(is_sha256(name) and file_sha256(file) != name for file, name in linked.items())


@contextmanager
def _telling_of_failures(repository: Repository) -> Iterator[None]:
    import httpx2
    from huggingface_hub import get_token
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    log_in = (
        "then" if get_token() else "then log in with `hf auth login`, or set HF_TOKEN to a token of your account, and"
    )
    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"{repository.id} asks for its licence to be accepted: do so on {repository.page}, {log_in} run this again"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"{repository.id} has no revision {repository.revision!r}: see {repository.page}") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"there is no repository {repository.id}, or it is not open to your account: check its name on"
            f" {repository.page}, {log_in} run this again"
        ) from error
    except OfflineModeIsEnabled as error:
        raise UserError(
            f"{repository} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it: leave that variable away"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        advice = f"see whether your token may read {repository.page}" if status in (401, 403) else "try again later"
        raise UserError(f"the hub refuses {repository} (HTTP status {status}): {advice}") from error
    except httpx2.DecodingError as error:
        raise UserError(
            f"{repository} can't be fetched, as what answers is not the hub: log in to the network if it asks for that"
            " in a browser, leave HF_ENDPOINT away if that is set, and run this again"
        ) from error
    except (httpx2.RequestError, EntryNotFoundError) as error:
        raise UserError(
            f"{repository} can't be fetched, as the hub can't be reached ({type(error).__name__}): check the"
            " connection and run this again"
        ) from error
    except OSError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{repository} can't be fetched ({reason}): run this again") from error
