"""Where each version's weights come from: repository, model page, and the small version in the box to try instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


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


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the known word nearest to a misspelt one; empty where none is near."""
    nearest = difflib.get_close_matches(word.lower().replace("-", "_"), list(known), n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""
