"""A run: of a batch what is missing is made, here or by others, with a report and a contact sheet as it goes."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ..checkpoint.files import Checkpoint
from ..errors import UserError, in_one_line
from ..outputs.clip_files import make_output_folder
from ..outputs.publishing import CLAIM, CONTACT_SHEET_NAME, LOCK, REPORT_NAME, clear_leftovers
from ..parameters.request import Request
from ..progress import Progress
from ..storage.files import write_whole
from ..storage.locks import locked, uninterrupted
from .contact_sheet import check_contact_sheet_is_ours, write_contact_sheet
from .items import Item, is_single
from .make import Maker, is_gone
from .outcome import Outcome
from .report import check_report_is_ours, summary, write_report
from .resume import Records, claim_key

Engine = Callable[[Sequence[Item]], Generator[Outcome]]  # makes items, and gives each one's outcome as it comes

SECONDS_BETWEEN_LOOKS = 0.5
SHARE_FOR_PAGES = 0.05  # of a run's time, at most, goes into rewriting report and contact sheet


def run_batch(items: Sequence[Item], request: Request, checkpoint: Checkpoint, make: Engine, progress: Progress) -> int:
    """Make the clips of all items that are not done; `make` is called where there are any. Returns 0, or 1 on failures.

    What is left is reported where Ctrl-C ends it early. Raises OSError where the rest would fail too, as on a full
    disk. A single item is a batch of one without report, contact sheet and table; what goes wrong with it is raised.
    """
    folders = sorted({item.folder(request.output_folder) for item in items})
    if is_single(request):
        (folder,) = folders
        clear_leftovers(folder)
        (outcome,) = make(items)
        progress.print(outcome.shown)
        return 0
    make_output_folder(request.output_folder)
    check_report_is_ours(request.output_folder)
    check_contact_sheet_is_ours(request.output_folder)
    cut_off = set().union(*map(clear_leftovers, folders))
    pages = _Pages(items, request, progress)
    try:
        missing = _missing(items, request, checkpoint, pages)
        if cut_off:  # an image that kills its process must not come first each time
            missing.sort(key=lambda item: claim_key(item, request, checkpoint) in cut_off)
        if missing:
            try:
                _make_all(missing, make, pages)
            except BaseException:  # Ctrl-C may come while a workplace is cleared, or before the last clip is counted
                with uninterrupted():
                    for folder in folders:
                        clear_leftovers(folder)
                    pages.outcomes += _just_finished(missing, request, checkpoint, pages.outcomes)
                raise
    finally:
        with uninterrupted():  # a second, impatient Ctrl-C
            written = pages.write()
            progress.say(summary(items, pages.outcomes, pages.seconds))
    return 0 if written and all(outcome.status != "failed" for outcome in pages.outcomes) else 1


def make_here(
    items: Sequence[Item], request: Request, checkpoint: Checkpoint, progress: Progress
) -> Generator[Outcome]:
    """Make the items in this process, in order, with one model.

    What another run is making comes last, and is made here if it isn't done by then.
    """
    maker = Maker(request, checkpoint, progress)
    at_once = maker.at_once(len(items))
    queue, busy = deque(items), 0
    while queue:
        taken = [queue.popleft() for _ in range(min(at_once, len(queue)))]
        for item, outcome in zip(taken, maker.make(taken), strict=True):
            if outcome is None:
                queue.append(item)
                busy += 1
            else:
                busy = 0
                yield outcome
        if queue and busy >= len(queue):
            if busy < len(queue) + at_once:
                progress.say(f"another run is making what is left here ({len(queue)}): waiting for it")
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _missing(items: Sequence[Item], request: Request, checkpoint: Checkpoint, pages: _Pages) -> list[Item]:
    """The items that are not done; those that are go into the pages."""
    records = Records(request, checkpoint)
    missing = []
    for item in pages.progress.track("looking for finished clips", items, unit="clip"):
        if record := records.find(item):
            pages.outcomes.append(Outcome(item, "there", record))
        else:
            missing.append(item)
    return missing


def _make_all(items: Sequence[Item], make: Engine, pages: _Pages) -> None:
    with closing(make(items)) as outcomes, pages.progress.stage("clips", len(items), unit="clip") as advance:
        for done, outcome in enumerate(outcomes, start=1):
            pages.add(outcome)
            left = tqdm.format_interval(pages.seconds / done * (len(items) - done))
            _tell(outcome, f"{done} of {len(items)}, {left} left", pages.progress)
            advance(1)
            if outcome.ends_run:
                raise OSError(f"ended early, for the rest would fail too: {outcome.reason}; mend that and run it again")


def _just_finished(
    items: Sequence[Item], request: Request, checkpoint: Checkpoint, outcomes: Sequence[Outcome]
) -> list[Outcome]:
    """Outcomes of those of the other items whose last file had just got its name when the run was ended."""
    records, known = Records(request, checkpoint), {outcome.item for outcome in outcomes}
    found = [(item, records.find(item)) for item in items if item not in known]
    return [Outcome(item, "made", record) for item, record in found if record is not None]


def _tell(outcome: Outcome, position: str, progress: Progress) -> None:
    if outcome.status == "failed":
        progress.say(f"failed ({position}): {outcome.complaint}")
    elif outcome.status == "made":
        progress.print(f"{outcome.shown} ({position})")


class _Pages:
    """What came of the items so far, and the two files in the output folder that say so."""

    def __init__(self, items: Sequence[Item], request: Request, progress: Progress):
        self.items, self.request, self.progress = items, request, progress
        self.outcomes: list[Outcome] = []
        self._began = math.inf
        self._next_writing = 0.0

    @property
    def seconds(self) -> float:
        """What has passed since the first item was begun."""
        return max(0.0, time.monotonic() - self._began)

    def add(self, outcome: Outcome) -> None:
        """Note an outcome, and write the files where it is time."""
        self.outcomes.append(outcome)
        self._began = min(self._began, time.monotonic() - outcome.seconds)
        if time.monotonic() >= self._next_writing:
            self.write()

    def write(self) -> bool:
        """Write both files, each whole. A failure is said in a line and returns False, for the clips matter more."""
        start, output_folder = time.monotonic(), self.request.output_folder
        if is_gone(output_folder):  # which the error that ends the run says
            return False
        by_item = {outcome.item: outcome for outcome in self.outcomes}
        planned = [by_item[item] for item in self.items if item in by_item]  # whichever came first
        pages = {
            REPORT_NAME: partial(write_report, folder=output_folder, items=self.items, outcomes=planned),
            CONTACT_SHEET_NAME: partial(write_contact_sheet, folder=output_folder, outcomes=planned),
        }
        written = [self._write(output_folder / name, write) for name, write in pages.items()]
        end = time.monotonic()
        self._next_writing = end + (end - start) / SHARE_FOR_PAGES
        return all(written)

    def _write(self, path: Path, write: Callable[[Path], object]) -> bool:
        try:
            # Another run writes the same files.
            with uninterrupted(), locked(path.parent / f"{CLAIM}pages{LOCK}", wait=True):
                write_whole(path, write)
        except (OSError, UserError) as error:
            self.progress.say(f"{path} can't be written: {in_one_line(error)}")
            return False
        return True
