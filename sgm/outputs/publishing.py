"""From a hidden folder to final names: a clip's files appear together or not at all, whoever dies on the way.

A clip is written into a workplace, the hidden folder `.claim-KEY` beside its final place, which one process holds at a
time. When all is whole, the name that it will have is noted in there, and then its parts are renamed one by one, the
record last: where there is a record, there is the whole clip. Whoever holds the workplace next, be it after a SIGKILL,
settles what it finds: with the name noted, the renames are completed; without it, the unfinished work is dropped.
"""

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sgm.storage.locks import locked, uninterrupted

REPORT_NAME, CONTACT_SHEET_NAME = "report.json", "index.html"  # what a batch writes into its output folder

CLAIM, LOCK = ".claim-", ".lock"
_PART = "clip"  # in its workplace every clip has this name
_NOTED_NAME = "name"


@contextmanager
def workplace(folder: Path, key: str) -> Iterator[Path | None]:
    """An empty hidden folder in `folder` that is this process's alone, or None where another one holds that key.

    What `publish` has not moved out of it is gone afterwards, in case of an error too.
    """
    aside = folder / f"{CLAIM}{key}"
    claim = ExitStack()
    try:
        with uninterrupted():
            held = claim.enter_context(locked(folder / f"{CLAIM}{key}{LOCK}", wait=False))
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

    Returns the keys of those that were settled.
    """
    settled = set()
    found = {path.name.removesuffix(LOCK).removeprefix(CLAIM) for path in folder.glob(f"{CLAIM}*")}
    for key in sorted(found):
        was_begun = (folder / f"{CLAIM}{key}").exists()
        with workplace(folder, key) as aside:
            if was_begun and aside is not None:
                settled.add(key)
    return settled


def part_path(aside: Path, suffix: str) -> Path:
    """Where the part with this suffix (".mp4"; "" for the folder of frames) is written in a workplace."""
    return aside / f"{_PART}{suffix}"


def publish(aside: Path, name: str) -> str:
    """Move all parts in a workplace to the first free one of NAME, NAME-1, NAME-2 ... beside it; returns that name.

    Nothing is overwritten. Ctrl-C waits until all are moved; a failure, or a second Ctrl-C, moves everything back.
    """
    folder = aside.parent
    with uninterrupted(), locked(folder / f"{CLAIM}publishing{LOCK}", wait=True):
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
    """Complete the renames of a workplace where they had begun, and remove it."""
    if not aside.exists():
        return
    note = aside / _NOTED_NAME
    final = os.fsdecode(note.read_bytes()) if note.exists() else ""
    if final:
        with locked(aside.parent / f"{CLAIM}publishing{LOCK}", wait=True):
            targets = _targets(aside, final)
            if not any(_is_taken(target) for target in targets.values()):  # else someone else took a name meanwhile
                for part, target in targets.items():
                    part.rename(target)
    shutil.rmtree(aside)


def _targets(aside: Path, final: str) -> dict[Path, Path]:
    """The final path of each part, in the order of renaming: folders first, the record last."""
    parts = sorted(aside.glob(f"{_PART}*"), key=lambda part: (part.suffix == ".json", part.is_file(), part.name))
    return {part: aside.parent / f"{final}{part.name.removeprefix(_PART)}" for part in parts}


def _is_taken(path: Path) -> bool:
    return path.name in (REPORT_NAME, CONTACT_SHEET_NAME) or os.path.lexists(path)
