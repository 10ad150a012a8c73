"""The results of a measurement, as a table to read and as JSON to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..metrics.tables import markdown_table


@dataclass(frozen=True)
class Report:
    """Scores by source ("generated", a baseline, ...) and measure; a source lacks the measures that don't apply to it.

    labels: each measure's description and number format, in the table's order. details: the numbers of each input.
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
        return markdown_table(rows)

    def as_json(self) -> dict[str, Any]:
        """Title, scores and details."""
        return {"title": self.title, "scores": self.scores, "details": self.details}
