"""What came of an item: its clip was made, was there, or failed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .items import Item


@dataclass(frozen=True)
class Outcome:
    """What came of an item.

    made: now. there: before, or meanwhile by another run. failed: `reason` says why.
    record: where the clip's record was when this became known; whoever likes may move a finished clip.
    shown: of a clip made now, what a line says of it. seconds: what it took.
    ends_run: whether what comes next would fail for the same reason, such as a full disk.
    """

    item: Item
    status: Literal["made", "there", "failed"]
    record: Path | None = None
    shown: str = ""
    reason: str | None = None
    seconds: float = 0.0
    ends_run: bool = False

    @property
    def complaint(self) -> str:
        """The reason of a failure, with the line and the image that it is about."""
        line = "" if self.item.line is None else f"line {self.item.line}: "
        path = str(self.item.image_path)
        return f"{line}{self.reason}" if path in (self.reason or "") else f"{line}{path}: {self.reason}"
