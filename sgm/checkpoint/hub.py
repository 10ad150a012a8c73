"""Weights in a repository of huggingface.co: those in the cache are used as they are; fetching has to be asked for.

This module decides which files are needed. huggingface_hub knows the token (HF_TOKEN, or `hf auth login`), the cache
(HF_HOME) and the offline switch (HF_HUB_OFFLINE).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ..config import RELEASES
from ..errors import UserError
from ..storage.files import file_sha256
from .fetching import cache_folder, fetch_files, is_sha256
from .files import COMPONENTS, Checkpoint, is_safetensors, weight_files, weight_names
from .hub_client import UnreachableError, list_files
from .repository import Repository, is_commit


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
    folder = cache_folder(repository) / "snapshots" / Path(snapshot).name
    if not (is_commit(folder.name) and folder.is_dir()):
        return None
    try:
        return _checkpoint(repository, folder, version)
    except UserError:  # a fetch that was stopped half-way
        return None


def fetch(repository: Repository, version: str) -> Checkpoint:
    """Fetch the version's weights into the cache, as far as they aren't there, and check what came.

    A commit that is whole in the cache needs no network, nor does any revision while the hub can't be reached. Raises
    UserError that says what to do about any failure; the next call goes on where that one stopped.
    """
    cached = find_cached(repository, version)
    if cached is not None and _is_damaged(cached):
        cached = None
    if cached is not None and repository.is_at_commit:
        return cached
    try:
        listing = list_files(repository)
    except UnreachableError:
        if cached is None:
            raise
        return cached
    names = needed_files(listing.entries, version)
    if not names:
        raise UserError(
            f"{repository} has no weights for {version}: neither {version}.safetensors nor diffusers' folders"
            f" {', '.join(COMPONENTS)}; see {repository.page}"
        )
    files = [listing.file(name) for name in names]
    try:
        folder = fetch_files(repository, listing.commit, files)
    except OSError as error:
        raise UserError(f"{repository} can't be fetched ({error}): run this again") from error
    return _checkpoint(repository, folder, version)


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
    alone = [name for name in names if is_safetensors(Path(name)) and "/" not in name]
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
