import pytest

from sgm.errors import UserError
from sgm.metrics.tables import check_can_write, markdown_table, write_json


def test_columns_are_as_wide_as_their_widest_cell():
    assert markdown_table([["", "a"], ["longer", "b"]]).splitlines() == [
        "|        | a |",
        "| ------ | - |",
        "| longer | b |",
    ]


def test_numbers_that_json_lacks_leave_the_earlier_file_as_it_was(tmp_path):
    path = tmp_path / "found.json"
    path.write_text("earlier")
    with pytest.raises(ValueError, match="nan"):
        write_json(path, {"psnr": float("nan")})
    assert [file.read_text() for file in tmp_path.iterdir()] == ["earlier"]


def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't create the folder"):
        check_can_write(tmp_path / "file" / "scores.json")
    with pytest.raises(UserError, match="is a folder"):
        check_can_write(tmp_path)
