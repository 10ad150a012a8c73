"""Files that are replaced whole or not at all, and their SHA-256."""

import hashlib
from pathlib import Path

import pytest

from sgm.storage.files import file_sha256, write_whole


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
        patch.setattr(Path, "open", None)
        assert file_sha256(path) == hashlib.sha256(b"first").hexdigest()
    path.write_bytes(b"second")
    assert file_sha256(path) == hashlib.sha256(b"second").hexdigest()
