"""What came of the batches of an output folder: `report.json` in it, and a table for people.

kind     what the file is
program  name, version
written  when, UTC, ISO 8601
counts   how many items of the last run were made, were there, failed, and are left
items    those items, in the order of the plan
earlier  items of earlier runs that the last one didn't ask for: those whose record is still there, or that have none
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any

from .. import __version__
from ..errors import UserError
from ..outputs.publishing import REPORT_NAME
from .items import Item
from .make import Outcome

KIND = "batch report"
MEANINGS = {"made": "made now", "there": "there already", "failed": "failed", "left": "left to make"}
ALWAYS = ("input_path", "name", "status")
MAX_ROWS = 20
MAX_BYTES = 256 * 2**20  # of a report; an item takes about 200


def check_report_is_ours(output_folder: Path) -> None:
    """Raises UserError where `report.json` is there and not a batch's, for it would be replaced."""
    path = output_folder / REPORT_NAME
    if os.path.lexists(path) and _read_report(path) is None:
        raise UserError(f"{path} is not a batch's report and would be replaced: move it, or give another output_folder")


def write_report(path: Path, folder: Path, items: Sequence[Item], outcomes: Iterable[Outcome]) -> None:
    """Write what came of every item of a run on the folder; items without an outcome are left to make.

    What the folder's report says of earlier runs is kept.
    """
    by_item = {outcome.item: outcome for outcome in outcomes}
    described = [_describe(item, by_item.get(item), folder) for item in items]
    report = {
        "kind": KIND,
        "program": {"name": "sgm", "version": __version__},
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "counts": {status: sum(entry["status"] == status for entry in described) for status in MEANINGS},
        "items": described,
        "earlier": list(_still_true(_read_report(folder / REPORT_NAME) or {}, described, folder)),
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


def _read_report(path: Path) -> Mapping[str, Any] | None:
    """A batch's report; None where something else is at the path, or nothing."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get("kind") == KIND else None


def _still_true(report: Mapping[str, Any], described: Iterable[Mapping[str, Any]], folder: Path) -> Iterator[Any]:
    """The items of a report that the described ones don't replace.

    A clip is known by its record, or else by its image and name; one whose record is gone is no longer in the folder.
    """
    known = {entry.get("record") for entry in described} | {_image_and_name(entry) for entry in described}
    for section in ("items", "earlier"):
        entries = report.get(section)
        for entry in entries if isinstance(entries, list) else ():
            if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ALWAYS):
                continue
            record = entry.get("record")
            if record is None:
                is_true = _image_and_name(entry) not in known
            else:
                is_true = isinstance(record, str) and record not in known and _is_below(folder, record)
            if is_true:
                yield entry


def _image_and_name(entry: Mapping[str, Any]) -> str:
    return json.dumps([entry.get("input_path"), entry.get("name")])


def _is_below(folder: Path, record: str) -> bool:
    """Whether a record is still at its place in the folder."""
    parts = PurePosixPath(record).parts
    if ".." in parts or PurePosixPath(record).is_absolute() or "\0" in record:
        return False
    try:
        return (folder / record).is_file()
    except OSError:  # a name too long
        return False
