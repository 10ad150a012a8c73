"""SHA-256 of files."""

import hashlib
from pathlib import Path

from sgm.storage.hashing import file_sha256


def test_a_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(b"first")
    assert file_sha256(path) == hashlib.sha256(b"first").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", None)
        assert file_sha256(path) == hashlib.sha256(b"first").hexdigest()
    path.write_bytes(b"second")
    assert file_sha256(path) == hashlib.sha256(b"second").hexdigest()
