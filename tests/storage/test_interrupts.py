"""Ctrl-C at the worst moments: it waits, and what was begun is whole or undone."""

import fcntl
import signal
import threading
from pathlib import Path

import pytest

from sgm.outputs.publishing import CLAIM, LOCK, part_path, publish, workplace
from sgm.storage.interrupts import uninterrupted
from sgm.storage.lock_file import locked


def interrupted(times: int, done: list[str]) -> None:
    with uninterrupted():
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        done.append("inner")


def test_ctrl_c_waits_for_the_end() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(1, done)
    assert done == ["inner"]
    with pytest.raises(KeyboardInterrupt):  # it is as it was before
        signal.raise_signal(signal.SIGINT)


def test_a_second_ctrl_c_does_not_wait() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(2, done)
    assert done == []


def test_nested_it_waits_for_the_outermost_end() -> None:
    done: list[str] = []

    def nested() -> None:
        with uninterrupted():
            interrupted(1, done)
            done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        nested()
    assert done == ["inner", "outer"]


def test_other_threads_pass_through() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.default_int_handler]


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
