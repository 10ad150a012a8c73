"""Locks between real processes: one holder at a time, freed by any death, no file left, no lock on a removed file."""

import errno
import multiprocessing
import os
import pathlib
import signal
import time

import pytest

from sgm.storage.lock_file import locked

CONTEXT = multiprocessing.get_context("spawn")


def _hold(path, held):
    with locked(path, wait=True):
        held.set()
        time.sleep(60)


def test_one_process_holds_it_until_it_dies(tmp_path):
    held = CONTEXT.Event()
    process = CONTEXT.Process(target=_hold, args=(tmp_path / "lock", held))
    process.start()
    assert held.wait(30)
    with locked(tmp_path / "lock", wait=False) as ours:
        assert not ours
    assert (tmp_path / "lock").exists(), "a lock that is another's is not removed"
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (tmp_path / "lock").exists()
    with locked(tmp_path / "lock", wait=False) as ours:
        assert ours
    assert list(tmp_path.iterdir()) == []


def test_it_is_freed_and_removed_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path / "lock", wait=True):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "lock", wait=False) as ours:
        assert ours


def test_it_is_freed_though_its_file_cannot_be_removed(tmp_path, monkeypatch):
    def stale(path, **_):
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as troubled:
        troubled.setattr(pathlib.Path, "unlink", stale)
        with locked(tmp_path / "lock", wait=True):
            pass
    with locked(tmp_path / "lock", wait=False) as ours:
        assert ours
    assert list(tmp_path.iterdir()) == []


def _count(folder, start):
    start.wait()
    for _ in range(200):
        with locked(folder / "lock", wait=True):
            number = int((folder / "count").read_text())
            (folder / "count").write_text(str(number + 1))


def test_waiting_processes_never_hold_it_together_though_each_removes_the_file(tmp_path):
    (tmp_path / "count").write_text("0")
    start = CONTEXT.Event()
    workers = [CONTEXT.Process(target=_count, args=(tmp_path, start)) for _ in range(4)]
    for process in workers:
        process.start()
    start.set()
    for process in workers:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "count").read_text() == "800"


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic link"), locked(tmp_path / "lock", wait=True):
        pass
    assert (tmp_path / "target").read_text() == "mine"
