import json
import os
from pathlib import Path

import pytest

from sgm.batch.items import Item
from sgm.batch.make import Outcome
from sgm.batch.report import MAX_ROWS, check_report_is_ours, summary, write_report
from sgm.config import load_config
from sgm.errors import UserError
from sgm.parameters.sampling import SamplingParameters

SETTINGS = SamplingParameters().resolved_for(load_config("svd_tiny"))
ITEMS = [Item(Path(f"in/{name}.png"), name, SETTINGS, line) for line, name in enumerate("abcd", 1)]


def outcomes(folder: Path) -> list[Outcome]:
    return [
        Outcome(ITEMS[2], "there", folder / "sub" / "c.json"),
        Outcome(ITEMS[0], "made", folder / "a-1.json", seconds=1.23456),
        Outcome(ITEMS[1], "failed", reason="no picture", seconds=0.5),
    ]


def test_every_item_is_told_in_the_plans_order(tmp_path):
    write_report(tmp_path / "report.json", tmp_path, ITEMS, outcomes(tmp_path))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["counts"] == {"made": 1, "there": 1, "failed": 1, "left": 1}
    assert report["items"] == [
        {"input_path": "in/a.png", "name": "a", "line": 1, "status": "made", "record": "a-1.json", "seconds": 1.235},
        {"input_path": "in/b.png", "name": "b", "line": 2, "status": "failed", "reason": "no picture", "seconds": 0.5},
        {"input_path": "in/c.png", "name": "c", "line": 3, "status": "there", "record": "sub/c.json", "seconds": 0.0},
        {"input_path": "in/d.png", "name": "d", "line": 4, "status": "left"},
    ]
    assert report["earlier"] == []
    check_report_is_ours(tmp_path)


def names_in(folder: Path) -> dict[str, list[str]]:
    report, sections = json.loads((folder / "report.json").read_text()), ("items", "earlier")
    return {section: [f"{entry['name']} {entry['status']}" for entry in report[section]] for section in sections}


def test_earlier_runs_of_the_folder_are_kept_for_as_long_as_they_are_true(tmp_path):
    path, (a, b, c, d) = tmp_path / "report.json", ITEMS
    for name in ("a.json", "a-1.json"):
        (tmp_path / name).write_text("{}")
    first = [Outcome(a, "made", tmp_path / "a.json"), Outcome(c, "made", tmp_path / "gone.json")]
    write_report(path, tmp_path, [a, b, c, d], [*first, Outcome(b, "failed", reason="x")])
    write_report(path, tmp_path, [b], [Outcome(b, "failed", reason="y")])
    assert names_in(tmp_path) == {"items": ["b failed"], "earlier": ["a made", "d left"]}
    write_report(path, tmp_path, [a], [])
    assert names_in(tmp_path) == {"items": ["a left"], "earlier": ["b failed", "a made", "d left"]}
    write_report(path, tmp_path, [a], [Outcome(a, "made", tmp_path / "a-1.json")])
    assert names_in(tmp_path) == {"items": ["a made"], "earlier": ["b failed", "a made", "d left"]}
    for _ in range(2):
        write_report(path, tmp_path, [a], [Outcome(a, "there", tmp_path / "a.json")])
        assert names_in(tmp_path) == {"items": ["a there"], "earlier": ["a made", "b failed", "d left"]}


ODD_RECORDS = [{"record": odd} for odd in (3, [], "../a.json", "/etc/hosts", "x" * 9999, "a\0")]
ODD = [3, None, [], {}, {"name": 3}, *ODD_RECORDS]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: json.dumps(odd)[:30])
def test_what_others_wrote_into_a_report_is_not_kept(tmp_path, odd):
    usual = {"input_path": "e.png", "name": "e", "status": "made"}
    entries = [usual | odd if isinstance(odd, dict) and odd else odd]
    (tmp_path.parent / "a.json").write_text("{}")
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"kind": "batch report", "items": [3], "earlier": entries}))
    write_report(path, tmp_path, ITEMS, [])
    assert names_in(tmp_path)["earlier"] == []


@pytest.mark.parametrize("odd", ["pipe", "link", "folder"])
def test_a_report_that_is_no_file_is_neither_read_nor_replaced(tmp_path, odd):
    path = tmp_path / "report.json"
    if odd == "pipe":
        pytest.importorskip("fcntl", reason="pipes with a name are not for Windows")
        os.mkfifo(path)
    elif odd == "link":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(UserError, match="would be replaced"):
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
    items = [Item(Path(f"{n}.png"), str(n), SETTINGS) for n in range(MAX_ROWS + 5)]
    *_, last = summary(items, [Outcome(item, "failed", reason="x") for item in items], 1.0).splitlines()
    assert last == "        ... and 5 more, all in report.json"


@pytest.mark.parametrize("content", ["mine", "[]", "{}", '{"kind": "other"}', "\udcff"])
def test_only_a_report_is_replaced(tmp_path, content):
    check_report_is_ours(tmp_path)
    (tmp_path / "report.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match="would be replaced"):
        check_report_is_ours(tmp_path)
