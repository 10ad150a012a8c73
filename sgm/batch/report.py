"""What came of a batch: `report.json` in the output folder, and a table for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import UserError
from ..outputs.publishing import REPORT_NAME
from .items import Item
from .make import Outcome

KIND = "batch report"
MEANINGS = {"made": "made now", "there": "there already", "failed": "failed", "left": "left to make"}
MAX_ROWS = 20


def check_report_is_ours(output_folder: Path) -> None:
    """Raises UserError where `report.json` is there and not a batch's, for it would be replaced."""
    path = output_folder / REPORT_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise UserError(f"{path} is not a batch's report and would be replaced: move it, or give another output_folder")


def write_report(path: Path, items: Sequence[Item], outcomes: Iterable[Outcome]) -> None:
    """Write what came of every item, in the order of the plan; items without an outcome are left to make."""
    by_item = {outcome.item: outcome for outcome in outcomes}
    described = [_describe(item, by_item.get(item), path.parent) for item in items]
    report = {
        "kind": KIND,
        "program": {"name": "sgm", "version": __version__},
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "counts": {status: sum(entry["status"] == status for entry in described) for status in MEANINGS},
        "items": described,
    }
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def summary(items: Sequence[Item], outcomes: Sequence[Outcome], seconds: float) -> str:
    """A table: how many clips were made, were there, failed and are left, then each that failed with its reason.

    With it the speed: of the whole, which took so many seconds, and of one worker, by the time that its clips took.
    """
    counts: Counter[str] = Counter(outcome.status for outcome in outcomes)
    counts["left"] = len(items) - len(outcomes)
    lines = [f"{counts[status]:>6}  {meaning}" for status, meaning in MEANINGS.items()]
    if made := [outcome.seconds for outcome in outcomes if outcome.status == "made"]:
        whole, of_one = (60 * len(made) / max(time, 1e-3) for time in (seconds, sum(made)))
        lines.append(f"  {whole:.1f} clips a minute, {of_one:.1f} a worker")
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    lines += [f"        {outcome.complaint}" for outcome in failed[:MAX_ROWS]]
    if len(failed) > MAX_ROWS:
        lines.append(f"        ... and {len(failed) - MAX_ROWS} more, all in {REPORT_NAME}")
    return "\n".join(lines)


def _describe(item: Item, outcome: Outcome | None, output_folder: Path) -> dict[str, Any]:
    described: dict[str, Any] = {"input_path": str(item.image_path), "name": item.name}
    if item.line is not None:
        described["line"] = item.line
    if outcome is None:
        return {**described, "status": "left"}
    described["status"] = outcome.status
    if outcome.record is not None:
        described["record"] = outcome.record.relative_to(output_folder).as_posix()
    if outcome.reason is not None:
        described["reason"] = outcome.reason
    return {**described, "seconds": round(outcome.seconds, 3)}
