"""From a hidden folder to final names: a clip's files appear together or not at all, whichever process dies on the way.

A clip is written into a workplace, the hidden folder `.claim-KEY` next to its final place, which one process holds at a
time. Once everything is written, its final name is noted there, and then its parts are renamed one by one, the record
last: where there is a record, there is the whole clip. Whoever holds the workplace next, even after a SIGKILL, settles
what it finds: if the name was noted, the renames are completed; otherwise the unfinished work is dropped.

The folder may be shared with malicious users. A noted name counts only if it is a plain one, only regular files and
real folders get final names, no link is followed, and anything that isn't a workplace is left alone.
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sgm.errors import UserError
from sgm.storage.files import is_other_than_file, is_real_file, is_real_folder, open_regular, remove
from sgm.storage.locks import locked, uninterrupted

REPORT_NAME, CONTACT_SHEET_NAME = "report.json", "index.html"  # what a batch writes into its output folder

CLAIM, LOCK = ".claim-", ".lock"
_PART = "clip"  # in its workplace every clip has this name
_NOTED_NAME = "name"
_MAX_NAME_BYTES = 255  # the limit of file systems


@contextmanager
def workplace(folder: Path, key: str) -> Iterator[Path | None]:
    """An empty hidden folder in `folder` that only this process uses, or None if another one holds that key.

    Whatever `publish` hasn't moved out of it is removed afterwards, even after an error. Raises UserError if something
    else is in the place of its lock.
    """
    aside = folder / f"{CLAIM}{key}"
    claim = ExitStack()
    try:
        with uninterrupted():
            held = claim.enter_context(locked(_free_lock(folder, key), wait=False))
            if held:
                claim.callback(_settle, aside)
                _settle(aside)
                aside.mkdir()
        yield aside if held else None
    finally:
        with uninterrupted():
            claim.close()


def clear_leftovers(folder: Path) -> set[str]:
    """Settle every workplace in the folder whose process has died; those of living processes are left alone.

    So are files and links with such names, and what belongs to other users. Returns the keys of those settled.
    """
    settled = set()
    found = {path.name.removesuffix(LOCK).removeprefix(CLAIM) for path in folder.glob(f"{CLAIM}*")}
    for key in sorted(found):
        aside = folder / f"{CLAIM}{key}"
        was_begun = is_real_folder(aside)
        if (os.path.lexists(aside) and not was_begun) or is_other_than_file(folder / f"{CLAIM}{key}{LOCK}"):
            continue
        with suppress(PermissionError), workplace(folder, key) as ours:
            if was_begun and ours is not None:
                settled.add(key)
    return settled


def check_name(name: str) -> None:
    """Raise UserError if a clip can't have this name, which must not contain folders."""
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise UserError(f"{name!r} can't name a clip: give a plain file name, without folders")


def part_path(aside: Path, suffix: str) -> Path:
    """Where the part with this suffix (".mp4"; "" for the folder of frames) is written in a workplace."""
    return aside / f"{_PART}{suffix}"


def publish(aside: Path, name: str) -> str:
    """Move all parts in a workplace to the first free one of NAME, NAME-1, NAME-2 ... next to it; returns that name.

    Nothing is overwritten. Ctrl-C waits until all are moved; a failure, or a second Ctrl-C, moves everything back.
    """
    folder = aside.parent
    with uninterrupted(), locked(_free_lock(folder, "publishing"), wait=True):
        for number in itertools.count():
            final = f"{name}-{number}" if number else name
            targets = _targets(aside, final)
            if not any(_is_taken(target) for target in targets.values()):
                break
        (aside / _NOTED_NAME).write_bytes(os.fsencode(final))
        moved: list[tuple[Path, Path]] = []
        try:
            for part, target in targets.items():
                part.rename(target)
                moved.append((part, target))
        except BaseException:
            for part, target in reversed(moved):
                target.rename(part)
            (aside / _NOTED_NAME).unlink()
            raise
    return final


def _settle(aside: Path) -> None:
    """Complete the renames of a workplace if they had begun, and remove it."""
    if is_real_folder(aside) and (final := _noted_name(aside)):
        with locked(_free_lock(aside.parent, "publishing"), wait=True):
            targets = _targets(aside, final)
            if not any(_is_taken(target) for target in targets.values()):  # else someone took a name meanwhile
                for part, target in targets.items():
                    part.rename(target)
    remove(aside)


def _noted_name(aside: Path) -> str | None:
    """The name that the parts in a workplace were about to get, if a valid one is noted."""
    note = aside / _NOTED_NAME
    if not is_real_file(note):
        return None
    with open_regular(note) as file:
        noted = file.read(_MAX_NAME_BYTES + 1)
    name = os.fsdecode(noted)
    try:
        check_name(name)
    except UserError:
        return None
    return name if len(noted) <= _MAX_NAME_BYTES else None


def _targets(aside: Path, final: str) -> dict[Path, Path]:
    """The final path of each part, in the order of renaming: folders first, the record last."""
    parts = [part for part in aside.glob(f"{_PART}*") if is_real_file(part) or is_real_folder(part)]
    parts.sort(key=lambda part: (part.suffix == ".json", part.is_file(), part.name))
    return {part: aside.parent / f"{final}{part.name.removeprefix(_PART)}" for part in parts}


def _free_lock(folder: Path, key: str) -> Path:
    """The path of a lock. Raises UserError if something else is there, so that nobody could ever hold it."""
    lock = folder / f"{CLAIM}{key}{LOCK}"
    if is_other_than_file(lock):
        raise UserError(f"{lock} is in the way: remove it, or give another output_folder")
    return lock


def _is_taken(path: Path) -> bool:
    return path.name in (REPORT_NAME, CONTACT_SHEET_NAME) or os.path.lexists(path)
