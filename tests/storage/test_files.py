"""Files that are replaced whole or not at all, and their SHA-256."""

import hashlib
import os

import pytest

from sgm.storage.files import file_sha256, read_json, read_text, remove, write_whole


def test_a_failed_write_leaves_the_earlier_file_as_it_was(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("earlier")

    def fail(aside):
        aside.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_whole(path, fail)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(b"first")
    assert file_sha256(path) == hashlib.sha256(b"first").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr("sgm.storage.files.open_regular", None)
        assert file_sha256(path) == hashlib.sha256(b"first").hexdigest()
    path.write_bytes(b"second")
    assert file_sha256(path) == hashlib.sha256(b"second").hexdigest()


def test_what_lies_where_the_new_file_is_written_is_no_way_out(tmp_path):
    target, path = tmp_path / "target", tmp_path / "scores.json"
    target.write_text("mine")
    (tmp_path / ".partial-scores.json").symlink_to(target)
    write_whole(path, lambda aside: aside.write_text("new"))
    assert (target.read_text(), path.read_text(), path.is_symlink()) == ("mine", "new", False)
    (tmp_path / ".partial-scores.json").mkdir()
    write_whole(path, lambda aside: aside.write_text("newer"))
    assert path.read_text() == "newer"
    assert sorted(tmp_path.iterdir()) == [path, target]


def test_links_are_removed_and_what_they_point_to_stays(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("mine")
    (tmp_path / "outer").mkdir()
    for link in (tmp_path / "link", tmp_path / "outer" / "link"):
        link.symlink_to(tmp_path / "folder")
        remove(link if link.parent == tmp_path else link.parent)
        assert not os.path.lexists(link)
    remove(tmp_path / "absent")
    assert (tmp_path / "folder" / "file").read_text() == "mine"


@pytest.fixture
def endless(tmp_path):
    """Paths of what can be opened and never ends: a FIFO without a writer, and a link to a device."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    return [tmp_path / "fifo", tmp_path / "zero"]


def test_only_regular_files_are_read(endless, tmp_path):
    for path in endless:
        with pytest.raises(OSError, match="Not a regular file"):
            file_sha256(path)
        with pytest.raises(OSError, match="Not a regular file"):
            read_text(path, 100)
    with pytest.raises(IsADirectoryError):
        read_text(tmp_path, 100)


def test_text_is_read_up_to_a_limit(tmp_path):
    path = tmp_path / "text"
    path.write_text("ä" * 50)
    assert read_text(path, 100) == "ä" * 50
    with pytest.raises(OSError, match="Larger than 99 bytes"):
        read_text(path, 99)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[" * 30 + "]" * 30, "nested too deeply"),
        ("9" * 5000, "a number of 5000 digits"),
        ("NaN", "the number NaN"),
        ("[-Infinity]", "the number -Infinity"),
        ("1e999", "the number 1e999"),
        ("{", "Expecting property name"),
    ],
)
def test_json_is_read_within_limits(tmp_path, text, told):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=told):
        read_json(path, 200_000)
    path.write_text('{"a": [1, -2.5, 1e300, null, {"b": "ä"}], "c": 9223372036854775807}')
    assert read_json(path, 200) == {"a": [1, -2.5, 1e300, None, {"b": "ä"}], "c": 2**63 - 1}
