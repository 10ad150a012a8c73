"""The weights of EMA-VFI, which interpolates frames: which files there are, and where they are looked for.

They were released as `ours.pkl` and so on, with one structure for all times and for the middle alone: the name of a
file is all that tells for what it was trained. Needs no torch, so that missing files are reported at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..storage.files import checkpoint_folders, file_sha256, user_checkpoint_folder

PAGE = "https://github.com/MCG-NJU/EMA-VFI"
# In the order in which they are looked for. Those with _t make the frame at any time, the others the one halfway.
RELEASES = ("ours_t", "ours", "ours_small_t", "ours_small")
SUFFIX = ".pkl"


@dataclass(frozen=True)
class InterpolatorWeights:
    """A file of one of RELEASES."""

    path: Path

    @property
    def release(self) -> str:
        """Which one of RELEASES it is."""
        return self.path.stem

    @property
    def knows_any_time(self) -> bool:
        """Whether it was trained for every time between two frames, rather than for the middle alone."""
        return self.release.endswith("_t")

    def describe(self) -> dict[str, Any]:
        """For a clip's record: release, path and SHA-256."""
        return {"release": self.release, "path": str(self.path.absolute()), "sha256": file_sha256(self.path)}


def find_interpolator(named: Path | str | None = None) -> InterpolatorWeights:
    """The file that `named` names, or the first of RELEASES in the folders for checkpoints.

    Raises UserError where there is none, saying how to get one, and for a file of another name.
    """
    if named is None:
        for folder in checkpoint_folders():
            for release in RELEASES:
                if (path := folder / f"{release}{SUFFIX}").exists():
                    return find_interpolator(path)
        raise UserError(
            f"interpolator ema_vfi needs weights: get ours_t{SUFFIX}, for any out_fps, or ours{SUFFIX}, for twice or"
            f" four times the frames, by the links of {PAGE}, and put it into {user_checkpoint_folder()} or name it"
            " with --interpolator_weights FILE; interpolator flow needs none"
        )
    path = Path(named).expanduser()
    if path.suffix != SUFFIX or path.stem not in RELEASES:
        raise UserError(
            f"interpolator_weights can't be {path}, for its name must tell what it was trained for: give one of"
            f" {', '.join(f'{release}{SUFFIX}' for release in RELEASES)}, as released on {PAGE}"
        )
    if not path.is_file():
        raise UserError(f"no file {path}: give that of interpolator_weights, which is linked on {PAGE}")
    return InterpolatorWeights(path)
