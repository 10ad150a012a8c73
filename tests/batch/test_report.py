import json
from pathlib import Path

import pytest

from sgm.batch.items import Item
from sgm.batch.make import Outcome
from sgm.batch.report import MAX_ROWS, check_report_is_ours, summary, write_report
from sgm.errors import UserError
from sgm.parameters.sampling import SamplingParameters

ITEMS = [Item(Path(f"in/{name}.png"), name, SamplingParameters(), 6.0, line) for line, name in enumerate("abcd", 1)]


def outcomes(folder: Path) -> list[Outcome]:
    return [
        Outcome(ITEMS[2], "there", folder / "sub" / "c.json"),
        Outcome(ITEMS[0], "made", folder / "a-1.json", seconds=1.23456),
        Outcome(ITEMS[1], "failed", reason="no picture", seconds=0.5),
    ]


def test_every_item_is_told_in_the_plans_order(tmp_path):
    write_report(tmp_path / "report.json", ITEMS, outcomes(tmp_path))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["counts"] == {"made": 1, "there": 1, "failed": 1, "left": 1}
    assert report["items"] == [
        {"input_path": "in/a.png", "name": "a", "line": 1, "status": "made", "record": "a-1.json", "seconds": 1.235},
        {"input_path": "in/b.png", "name": "b", "line": 2, "status": "failed", "reason": "no picture", "seconds": 0.5},
        {"input_path": "in/c.png", "name": "c", "line": 3, "status": "there", "record": "sub/c.json", "seconds": 0.0},
        {"input_path": "in/d.png", "name": "d", "line": 4, "status": "left"},
    ]
    check_report_is_ours(tmp_path)


def test_the_table_counts_and_names_what_failed(tmp_path):
    assert summary(ITEMS, outcomes(tmp_path), seconds=30.0).splitlines() == [
        "     1  made now",
        "     1  there already",
        "     1  failed",
        "     1  left to make",
        "  2.0 clips a minute, 48.6 a worker",
        "        line 2: in/b.png: no picture",
    ]


def test_a_long_table_points_to_the_report():
    items = [Item(Path(f"{n}.png"), str(n), SamplingParameters(), 6.0) for n in range(MAX_ROWS + 5)]
    *_, last = summary(items, [Outcome(item, "failed", reason="x") for item in items], 1.0).splitlines()
    assert last == "        ... and 5 more, all in report.json"


@pytest.mark.parametrize("content", ["mine", "[]", "{}", '{"kind": "other"}', "\udcff"])
def test_only_a_report_is_replaced(tmp_path, content):
    check_report_is_ours(tmp_path)
    (tmp_path / "report.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match="would be replaced"):
        check_report_is_ours(tmp_path)
