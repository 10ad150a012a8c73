"""From a hidden folder to final names, with Ctrl-C at the worst moments: what was begun is whole or undone."""

import fcntl
import signal
from pathlib import Path

import pytest

from sgm.outputs.publishing import CLAIM, LOCK, part_path, publish, workplace
from sgm.storage.locks import locked


@pytest.fixture
def ctrl_c_with_each_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes right after a lock is taken, before anyone knows of it."""
    flock = fcntl.flock

    def lock_and_interrupt(descriptor: int, how: int) -> None:
        flock(descriptor, how)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(fcntl, "flock", lock_and_interrupt)


def is_free(lock: Path) -> bool:
    with locked(lock, wait=False) as held:
        return held


def test_a_workplace_that_is_interrupted_leaves_nothing(
    tmp_path: Path, ctrl_c_with_each_lock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt), workplace(tmp_path, "key"):
        raise AssertionError("it was interrupted before")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    with workplace(tmp_path, "key") as aside:
        assert aside is not None


def test_publishing_that_is_interrupted_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    def make_and_publish() -> None:
        with workplace(tmp_path, "key") as aside:
            assert aside is not None
            part_path(aside, ".json").write_text("{}")
            request.getfixturevalue("ctrl_c_with_each_lock")
            publish(aside, "clip")

    with pytest.raises(KeyboardInterrupt):
        make_and_publish()
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["clip.json"]
    assert is_free(tmp_path / f"{CLAIM}publishing{LOCK}")
