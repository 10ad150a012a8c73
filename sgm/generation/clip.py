"""A finished clip in memory: its frames and its record, and how it is written to a video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..outputs.clip_files import DEFAULT_QUALITY, clip_writer, format_of
from ..outputs.provenance import Provenance
from ..storage.files import write_whole

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Clip:
    """A finished clip.

    frames: uint8 (t, H, W, 3) RGB, watermarked where they are large enough for it.
    record: everything needed to make the clip again, ready for JSON (see `sgm.outputs.record`).
    """

    frames: Pixels
    record: dict[str, Any]

    def save(self, path: Path | str) -> None:
        """Write the clip as .mp4, .gif or .webp, by the path's extension, at the record's frame rate.

        An existing file is replaced, as a whole or not at all. Raises UserError for another extension, and OSError if
        the file can't be written.
        """
        format_name = format_of(Path(path))
        provenance, fps = Provenance.of(self.record), self.record["output"]["fps"]

        def write_aside(aside: Path) -> None:
            with clip_writer(format_name, aside, fps, DEFAULT_QUALITY, provenance) as write:
                write(self.frames)

        write_whole(Path(path), write_aside)
