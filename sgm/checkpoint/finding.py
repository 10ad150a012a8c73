"""Where a version's weights are: what was named, the folders for checkpoints, or the cache of huggingface.co.

Needs no torch, so that missing weights are reported at once.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from ..config import RELEASES, TextConfig
from ..errors import UserError
from ..storage.files import bundled_checkpoint_folder, checkpoint_folders, is_checkout, user_checkpoint_folder
from .fetching import cache_folder
from .files import Checkpoint, weight_files
from .hub import fetch, find_cached
from .repository import Repository, read_address

TEXT_TOWER = "open_clip_model"
TEXT_TOWER_REPOSITORY = Repository("laion/CLIP-ViT-H-14-laion2B-s32B-b79K")


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


def add_text(found: Checkpoint, text_adapter: Path, text: TextConfig, *, download: bool = False) -> Checkpoint:
    """The same weights with a text adapter, of this structure, and the text tower that it may need.

    Raises UserError where there is no tower, saying how to get it.
    """
    tower = find_text_tower(download=download) if text.encoder == "ViT-H-14" else None
    return replace(found, text_adapter=text_adapter, text_tower=tower)


def find_text_tower(*, download: bool = False) -> Checkpoint:
    """OpenCLIP's ViT-H-14: a file of its hub's name among the checkpoints, or the repository's. Raises UserError."""
    for folder in checkpoint_folders():
        if (path := folder / f"{TEXT_TOWER}.safetensors").is_file():
            return Checkpoint(path)
    found = _find_in_repository(TEXT_TOWER_REPOSITORY, TEXT_TOWER, download)
    if found is None:
        raise UserError(
            f"the text_adapter needs CLIP's text tower: add --download to fetch it from {TEXT_TOWER_REPOSITORY.page}"
            f" into {cache_folder(TEXT_TOWER_REPOSITORY)}, or put {TEXT_TOWER}.safetensors into"
            f" {user_checkpoint_folder()}"
        )
    return found


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
