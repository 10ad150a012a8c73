"""What a measurement found, as a table to read and as JSON to keep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..outputs.whole_file import write_whole


@dataclass(frozen=True)
class Report:
    """Scores by source ("generated", a baseline, ...) and measure; a source may lack measures that it can't have.

    labels: each measure's words and number format, in the table's order. details: the numbers of each input.
    """

    title: str
    labels: Mapping[str, tuple[str, str]]
    scores: Mapping[str, Mapping[str, float]]
    details: Sequence[Mapping[str, Any]]

    def table(self) -> str:
        """A Markdown table with a row for each measure and a column for each source."""
        rows = [["", *self.scores]]
        for measure, (words, number_format) in self.labels.items():
            cells = [format(of[measure], number_format) if measure in of else "" for of in self.scores.values()]
            rows.append([words, *cells])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [_line([cell.ljust(width) for cell, width in zip(row, widths, strict=True)]) for row in rows]
        lines.insert(1, _line(["-" * width for width in widths]))
        return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_json(path: Path, report: Report, made_with: Mapping[str, Any]) -> None:
    """Write a report, with what it was made with, as JSON."""
    content = {**made_with, "title": report.title, "scores": report.scores, "details": report.details}
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def check_can_write(path: Path) -> None:
    """Raise UserError now, rather than after the work, where the path's folder isn't there or can't be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"can't make the folder {path.parent}: {error.strerror}; give another place") from error
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a file")
