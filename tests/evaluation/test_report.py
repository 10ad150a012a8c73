import json

from sgm.evaluation.report import Report
from sgm.metrics.tables import write_json

REPORT = Report(
    title="a model: 2 inputs",
    labels={"psnr_db": ("PSNR, dB", ".1f"), "right": ("right", ".0%")},
    scores={"generated": {"psnr_db": 20.04, "right": 0.75}, "baseline": {"psnr_db": 9.96}},
    details=[{"seed": 1}],
)


def test_table_is_markdown_with_a_column_for_each_source():
    assert REPORT.table().splitlines() == [
        "|          | generated | baseline |",
        "| -------- | --------- | -------- |",
        "| PSNR, dB | 20.0      | 10.0     |",
        "| right    | 75%       |          |",
    ]


def test_json_holds_the_scores_and_how_they_came_about(tmp_path):
    path = tmp_path / "scores.json"
    write_json(path, {"version": "svd_tiny"} | REPORT.as_json())
    assert json.loads(path.read_text()) == {
        "version": "svd_tiny",
        "title": "a model: 2 inputs",
        "scores": {"generated": {"psnr_db": 20.04, "right": 0.75}, "baseline": {"psnr_db": 9.96}},
        "details": [{"seed": 1}],
    }
