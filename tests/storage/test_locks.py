"""Locks between real processes: one holder at a time, freed by any death, no file left; and Ctrl-C that waits."""

import errno
import multiprocessing
import os
import pathlib
import signal
import threading
import time

import pytest

from sgm.storage import locks
from sgm.storage.locks import locked, take_quick_ctrl_c_as_one, uninterrupted

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


def test_a_fifo_or_a_folder_in_its_place_is_no_lock(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder"):
        with pytest.raises(OSError, match=name), locked(tmp_path / name, wait=True):
            pass


def test_waiting_for_a_stopped_process_is_mentioned_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "SECONDS_BEFORE_A_WORD", 0.2)
    held = CONTEXT.Event()
    process = CONTEXT.Process(target=_hold, args=(tmp_path / "lock", held))
    process.start()
    assert held.wait(30)
    os.kill(process.pid, signal.SIGSTOP)
    ending = threading.Timer(1, os.kill, [process.pid, signal.SIGKILL])
    ending.start()
    with locked(tmp_path / "lock", wait=True) as ours:
        assert ours
    process.join()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("waiting for the process that holds ")
    with locked(tmp_path / "lock", wait=True):
        time.sleep(0.4)
    assert capsys.readouterr().err == ""


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


def test_a_later_second_ctrl_c_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "SECONDS_OF_ONE_CTRL_C", 0.0)
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(2, done)
    assert done == []


def test_a_quick_second_ctrl_c_waits_too() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(2, done)
    assert done == ["inner"]


def test_of_quick_ctrl_c_a_program_hears_one() -> None:
    cleaned_up: list[int] = []

    def stopped_while_it_cleans_up() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            for number in range(3):
                signal.raise_signal(signal.SIGINT)
                cleaned_up.append(number)

    try:
        take_quick_ctrl_c_as_one()
        with pytest.raises(KeyboardInterrupt):
            stopped_while_it_cleans_up()
        time.sleep(locks.SECONDS_OF_ONE_CTRL_C)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert cleaned_up == [0, 1, 2]


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
