"""Measurements on their way out: as a table to read, and as JSON to keep."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgm.errors import UserError
from sgm.storage.files import write_whole


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first one the header, as a Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"| {' | '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))} |" for row in rows]
    lines.insert(1, f"| {' | '.join('-' * width for width in widths)} |")
    return "\n".join(lines)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a measurement, whole or not at all; ValueError for a number that JSON can't express."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def check_can_write(path: Path) -> None:
    """Raise UserError now, rather than after the work, if the path is a folder or its own folder can't be created."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"can't create the folder {path.parent}: {error.strerror}; give another path") from error
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a file")
