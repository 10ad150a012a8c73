"""Where a version's weights are: what was named, the folders for checkpoints, or the cache of huggingface.co.

Needs no torch, so that missing weights are told at once.
"""

from __future__ import annotations

from pathlib import Path

from ..config import RELEASES
from ..errors import UserError
from ..storage.folders import bundled_checkpoint_folder, checkpoint_folders, is_checkout, user_checkpoint_folder
from .files import Checkpoint, weight_files
from .hub import Repository, fetch, find_cached, read_address


def find_checkpoint(
    version: str, named: Checkpoint | Path | str | None = None, *, download: bool = False
) -> Checkpoint:
    """The weights that `named` names, or else the version's own.

    Args:
        version: which model they are for.
        named: a file, a folder of diffusers' layout, or a repository of huggingface.co, `owner/name[@revision]`. None
            stands for `<version>.safetensors`, or a folder `<version>`, among the bundled checkpoints or the user's
            (see `sgm.storage.folders`), or for the version's own repository, in this order.
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
        repository = Repository(release.repository)
        found = fetch(repository, version) if download else find_cached(repository, version)
        if found is not None:
            return found
    raise UserError(_how_to_get(version))


def _find_named(version: str, path: Path, download: bool) -> Checkpoint:
    repository = None if path.exists() else read_address(path.as_posix())
    if repository is None:
        weight_files(path)
        return Checkpoint(path)
    found = fetch(repository, version) if download else find_cached(repository, version)
    if found is None:
        raise UserError(
            f"there is no file or folder {path} here, and no weights of a repository of that name in the cache:"
            f" add --download to fetch them from {repository.page}"
        )
    return found


def _how_to_get(version: str) -> str:
    release, path = RELEASES.get(version), user_checkpoint_folder() / f"{version}.safetensors"
    if release is None:
        return f"no checkpoint {path}: put the weights of {version} there, or name their file with --checkpoint FILE"
    if release.repository is None:
        path = bundled_checkpoint_folder() / path.name
        mend = f"restore it with: git checkout -- {path}" if is_checkout() else "install sgm again"
        return f"no checkpoint {path}: it comes with the program, so {mend}"
    return (
        f"no checkpoint for {version}: accept the licence on {release.page} and add --download to fetch it,"
        f" or put {path.name} into {path.parent}, or name a file or folder that you have with --checkpoint,"
        f" or try the small version in the box with --version {release.bundled_version}"
    )
