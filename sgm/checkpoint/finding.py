"""Where a version's weights are: what was named, the folders for checkpoints, or the cache of huggingface.co.

Needs no torch, so that missing weights are reported at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from ..config import RELEASES
from ..errors import UserError
from ..storage.files import bundled_checkpoint_folder, checkpoint_folders, is_checkout, user_checkpoint_folder
from .fetching import cache_folder
from .files import Checkpoint, weight_files
from .hub import fetch, find_cached
from .repository import Repository, read_address


def find_checkpoint(
    version: str, named: Checkpoint | Path | str | None = None, *, download: bool = False
) -> Checkpoint:
    """The weights that `named` names, or else the version's own.

    Args:
        version: which model they are for.
        named: a file, a folder of diffusers' layout, or a repository of huggingface.co, `owner/name[@revision]`. None
            stands for `<version>.safetensors`, or a folder `<version>`, among the bundled checkpoints or the user's
            (see `sgm.storage.files`), or for the version's own repository, in this order.
        download: whether what is not there may be fetched from the repository; without it only its cache is used.

    Raises UserError where there are none, saying how to get them.
    """
    if isinstance(named, Checkpoint):
        return named
    if named is not None:
        return _find_named(version, Path(named).expanduser(), download)
    for folder in checkpoint_folders():
        for path in (folder / f"{version}.safetensors", folder / version):
            if path.exists():
                weight_files(path)
                return Checkpoint(path)
    release = RELEASES.get(version)
    if release is not None and release.repository is not None:
        found = _find_in_repository(Repository(release.repository), version, download)
        if found is not None:
            return found
    raise UserError(_how_to_get(version))


def _find_named(version: str, path: Path, download: bool) -> Checkpoint:
    repository = None if path.exists() else read_address(path.as_posix())
    if repository is None:
        weight_files(path)
        return Checkpoint(path)
    found = _find_in_repository(repository, version, download)
    if found is None:
        raise UserError(
            f"there is no file or folder {path} here, and no weights of a repository of that name in the cache:"
            f" add --download to fetch them from {repository.page} into {cache_folder(repository)}"
        )
    return found


def _find_in_repository(repository: Repository, version: str, download: bool) -> Checkpoint | None:
    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:  # asked before huggingface_hub, whose import fails
        urlsplit(endpoint).port  # noqa: B018
    except ValueError as error:
        raise UserError(f"HF_ENDPOINT is not an address ({endpoint!r}): unset it, or mend it") from error
    return fetch(repository, version) if download else find_cached(repository, version)


def _how_to_get(version: str) -> str:
    release, path = RELEASES.get(version), user_checkpoint_folder() / f"{version}.safetensors"
    if release is None:
        return f"no checkpoint {path}: put the weights of {version} there, or name their file with --checkpoint FILE"
    if release.repository is None:
        path = bundled_checkpoint_folder() / path.name
        mend = f"restore it with: git checkout -- {path}" if is_checkout() else "install sgm again"
        return f"no checkpoint {path}: it comes with the program, so {mend}"
    return (
        f"no checkpoint for {version}: accept the licence on {release.page} and add --download to fetch it into"
        f" {cache_folder(Repository(release.repository))}, or put {path.name} into {path.parent}, or name a file or"
        f" folder that you have with --checkpoint, or try the small bundled version with --version"
        f" {release.bundled_version}"
    )
