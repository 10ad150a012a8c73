"""From a hidden folder to final names: with Ctrl-C at the worst moments, and in a folder shared with an enemy."""

import fcntl
import os
import signal
from pathlib import Path

import pytest

from sgm.errors import UserError
from sgm.outputs.publishing import CLAIM, LOCK, clear_leftovers, part_path, publish, workplace
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


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder with all that an enemy may plant beside it, which no test may change."""
    (tmp_path / "escape").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def everything_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def plant(out: Path, note: bytes, key: str = "x") -> Path:
    """A workplace as a killed process would leave it, with this name noted."""
    aside = out / f"{CLAIM}{key}"
    aside.mkdir()
    (aside / "name").write_bytes(note)
    part_path(aside, ".json").write_text("{}")
    part_path(aside, ".sh").write_text("#!/bin/sh")
    return aside


@pytest.mark.parametrize(
    "note",
    [b"../escape/planted", b"/tmp/planted", b"..", b".", b"", b"a/b", b"..\\b", b"a\0b", b"x" * 256, b"x" * 10**6],
)
def test_a_planted_note_moves_nothing_out_of_the_folder(out: Path, note: bytes) -> None:
    plant(out, note)
    assert clear_leftovers(out) == {"x"}
    assert everything_below(out.parent) == ["escape", "mine", "out"]


def test_a_note_with_a_plain_name_is_followed(out: Path) -> None:
    plant(out, os.fsencode("été \udcff"))
    clear_leftovers(out)
    assert everything_below(out) == sorted(["été \udcff.json", "été \udcff.sh"])


def test_a_planted_note_that_never_ends_or_is_a_link_is_not_read(out: Path) -> None:
    for key, is_fifo in (("x", True), ("y", False)):
        note = plant(out, b"photo", key) / "name"
        note.unlink()
        os.mkfifo(note) if is_fifo else note.symlink_to("/dev/zero")
    assert clear_leftovers(out) == {"x", "y"}
    assert everything_below(out) == []


def test_planted_links_get_no_final_names(out: Path) -> None:
    aside = plant(out, b"photo")
    part_path(aside, ".mp4").symlink_to(out.parent / "mine")
    part_path(aside, "").symlink_to(out.parent / "escape")
    clear_leftovers(out)
    assert everything_below(out) == ["photo.json", "photo.sh"]
    assert everything_below(out.parent / "escape") == []


def odd_claims(out: Path) -> None:
    """What is called like a workplace or its lock and is none."""
    (out / f"{CLAIM}file").write_text("mine")
    (out / f"{CLAIM}link").symlink_to(out.parent / "escape")
    (out / f"{CLAIM}folder{LOCK}").mkdir()
    os.mkfifo(out / f"{CLAIM}fifo{LOCK}")
    (out / f"{CLAIM}linked{LOCK}").symlink_to(out.parent / "mine")


def test_odd_files_are_left_alone_and_block_nobody(out: Path) -> None:
    odd_claims(out)
    before = everything_below(out.parent)
    plant(out, b"photo", "dead")
    assert clear_leftovers(out) == {"dead"}
    assert everything_below(out.parent) == sorted([*before, "out/photo.json", "out/photo.sh"])
    with workplace(out, "new") as aside:
        assert aside is not None
        part_path(aside, ".json").write_text("{}")
        assert publish(aside, "clip") == "clip"


def test_odd_files_in_the_place_of_ones_own(out: Path) -> None:
    odd_claims(out)
    (out.parent / "escape" / "name").write_text("photo")
    for key in ("file", "link"):
        with workplace(out, key) as aside:
            assert aside is not None
            assert everything_below(aside) == []
    for key in ("folder", "fifo", "linked"):
        with pytest.raises(UserError, match="is in the way: remove it"), workplace(out, key):
            pass
    assert everything_below(out.parent / "escape") == ["name"]
    assert (out.parent / "mine").read_text() == "mine"
