"""Where each version's weights come from: file name, model page, and the small version in the box to try instead.

Needs no torch, so that a missing checkpoint is told at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError

CHECKPOINT_FOLDER = Path(__file__).resolve().parent.parent / "checkpoints"


@dataclass(frozen=True)
class Release:
    """One version's weights. `repository` is Stability AI's on Hugging Face; None for a version that is in the box."""

    repository: str | None
    bundled_version: str

    @property
    def page(self) -> str:
        """The model's page, where its licence is read and accepted; empty for a version in the box."""
        return f"https://huggingface.co/{self.repository}" if self.repository else ""


RELEASES = {
    "svd": Release("stabilityai/stable-video-diffusion-img2vid", "svd_tiny"),
    "svd_xt": Release("stabilityai/stable-video-diffusion-img2vid-xt", "svd_tiny"),
    "svd_xt_1_1": Release("stabilityai/stable-video-diffusion-img2vid-xt-1-1", "svd_tiny"),
    "svd_image_decoder": Release("stabilityai/stable-video-diffusion-img2vid", "svd_tiny"),
    "svd_xt_image_decoder": Release("stabilityai/stable-video-diffusion-img2vid-xt", "svd_tiny"),
    "sv3d_u": Release("stabilityai/sv3d", "sv3d_tiny"),
    "sv3d_p": Release("stabilityai/sv3d", "sv3d_tiny"),
    "svd_tiny": Release(None, "svd_tiny"),
    "sv3d_tiny": Release(None, "sv3d_tiny"),
}


def find_checkpoint(version: str, checkpoint: Path | None = None) -> Path:
    """The file that holds a version's weights: `checkpoint`, or `checkpoints/<version>.safetensors` of the project.

    Raises UserError where there is no such file, saying how to get it.
    """
    if checkpoint is not None:
        if not checkpoint.is_file():
            raise UserError(f"no checkpoint file {checkpoint}: give the path of a .safetensors file with --checkpoint")
        return checkpoint
    path = CHECKPOINT_FOLDER / f"{version}.safetensors"
    if not path.is_file():
        raise UserError(_how_to_get(version, path))
    return path


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the known word nearest to a misspelt one; empty where none is near."""
    nearest = difflib.get_close_matches(word.lower().replace("-", "_"), list(known), n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def _how_to_get(version: str, path: Path) -> str:
    release = RELEASES.get(version)
    if release is None:
        return f"no checkpoint {path}: put the weights of {version} there, or name their file with --checkpoint FILE"
    if release.repository is None:
        return f"no checkpoint {path}: it comes with the project, so restore it with: git checkout -- {path}"
    return (
        f"no checkpoint for {version}: {path.name} belongs in {path.parent}; accept the licence on {release.page} and"
        f" fetch it with `hf download {release.repository} {path.name} --local-dir {path.parent}`,"
        f" or name a file that you have with --checkpoint FILE,"
        f" or try the small version in the box with --version {release.bundled_version}"
    )
