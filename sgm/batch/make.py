"""Making items, in a process that has loaded the model once: claimed, made, saved, and what came of each.

This needs nothing but the items, the request and the files, so any number of processes can do it side by side.
"""

from __future__ import annotations

import errno
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from PIL import Image

from ..checkpoint.files import Checkpoint
from ..errors import error_numbers, in_one_line, is_out_of_memory, is_out_of_room
from ..inputs.image import read_image
from ..outputs.clip_files import ClipPaths, make_output_folder, save_clip
from ..outputs.publishing import workplace
from ..parameters.request import Request
from ..progress import Progress
from .items import Item
from .resume import Records, claim_key

if TYPE_CHECKING:
    import torch

    from ..generation.pipeline import Clip, Pipeline, Shot

T = TypeVar("T")

# What another try a moment later may not meet again, as on a network share.
TRANSIENT = {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.ENETDOWN,
             errno.ENETUNREACH, errno.ECONNRESET, errno.ECONNABORTED, errno.EHOSTUNREACH}  # fmt: skip
SECONDS_BEFORE_RETRY = 1.0


@dataclass(frozen=True)
class Outcome:
    """What came of an item.

    made: now. there: before, or meanwhile by another run. failed: `reason` says why.
    record: path of the clip's record, where there is one. seconds: what it took.
    ends_run: whether what comes next would fail for the same reason, such as a full disk.
    """

    item: Item
    status: Literal["made", "there", "failed"]
    record: Path | None = None
    reason: str | None = None
    seconds: float = 0.0
    ends_run: bool = False

    @property
    def complaint(self) -> str:
        """The reason of a failure, with the line and the image that it is about."""
        line = "" if self.item.line is None else f"line {self.item.line}: "
        path = str(self.item.image_path)
        return f"{line}{self.reason}" if path in (self.reason or "") else f"{line}{path}: {self.reason}"


def load_pipeline(request: Request, checkpoint: Checkpoint, progress: Progress) -> Pipeline:
    """The model that the request asks for, loaded; says which device and memory mode were chosen for the user."""
    from ..generation.pipeline import load  # only now: torch takes seconds to import

    pipeline = load(
        request.version,
        checkpoint=checkpoint,
        config=request.config,
        device=request.device,
        precision=request.precision,
        fp8=request.fp8,
        memory=request.memory,
        compile=request.compile,
        progress=progress,
    )
    if request.device is None and pipeline.device.type != "cuda":
        progress.say(f"no CUDA device was found: computing on {pipeline.device} in {pipeline.precision}")
    if request.memory == "auto":
        progress.say(f"by the memory that is free: --memory {pipeline.generator.placement.name}")
    return pipeline


def make_clip(
    pipeline: Pipeline, item: Item, request: Request, aside: Path, picture: Image.Image | None = None
) -> ClipPaths:
    """Make an item's clip and save it beside the workplace `aside`; `picture` is the fitted image, where it is there.

    Raises what went wrong: UserError for an image that no clip can be made of, OSError for files, and whatever the
    model raises.
    """
    shot = _prepare(pipeline, item, picture)
    return _save(pipeline, _generate_alone(pipeline, shot), item, request, aside)


def make_items(
    pipeline: Pipeline, items: Sequence[Item], request: Request, checkpoint: Checkpoint
) -> list[Outcome | None]:
    """See to it that the items' clips are there, and tell what came of each; None is what another process is making.

    Those of one kind (see `Shot`) are made together. Raises nothing but KeyboardInterrupt and the like.
    """
    jobs = [_Job(item, verbose=request.verbose) for item in items]
    try:
        for job in jobs:
            with job.step():
                job.begin(pipeline, request, checkpoint)
        _generate_all(pipeline, [job for job in jobs if job.shot is not None])
        for job in jobs:
            if job.clip is not None and job.aside is not None:
                with job.step():
                    job.record = _save(pipeline, job.clip, job.item, request, job.aside).record
    finally:
        for job in jobs:
            with job.step():
                job.claim.close()
    lost = any(job.reason is not None for job in jobs) and is_lost(pipeline.device)
    return [job.outcome(ends_run=lost) for job in jobs]


def is_lost(device: torch.device) -> bool:
    """Whether a graphics card answers this process no more, as after an access out of bounds; a new process may do."""
    if device.type != "cuda":
        return False
    torch = sys.modules["torch"]
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


@dataclass
class _Job:
    """An item on its way to a clip. What fails on it is noted, and ends it alone."""

    item: Item
    verbose: bool
    claim: ExitStack = field(default_factory=ExitStack)
    aside: Path | None = None
    was_there: Path | None = None
    shot: Shot | None = None
    clip: Clip | None = None
    record: Path | None = None
    reason: str | None = None
    out_of_room: bool = False
    seconds: float = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """A part of the work: its time counts, and its error is the reason why there is no clip."""
        start = time.monotonic()
        try:
            yield
        except Exception as error:  # one bad item never ends a run
            if self.verbose:
                traceback.print_exc()
            self.reason, self.shot, self.clip = self.reason or in_one_line(error), None, None
            self.out_of_room |= is_out_of_room(error)
        self.seconds += time.monotonic() - start

    def begin(self, pipeline: Pipeline, request: Request, checkpoint: Checkpoint) -> None:
        """Claim it, and fit its image where the clip is still to be made."""
        folder = self.item.folder(request.output_folder)
        key = claim_key(self.item, request, checkpoint)

        def claim() -> Path | None:
            make_output_folder(folder)
            return self.claim.enter_context(workplace(folder, key))

        self.aside = _trying_twice(claim, pipeline)
        if self.aside is not None:
            self.was_there = Records(request, checkpoint).find(self.item)
            if self.was_there is None:
                self.shot = _prepare(pipeline, self.item)

    def outcome(self, *, ends_run: bool) -> Outcome | None:
        """What came of it; `ends_run` is whether a failure ends the run in any case."""
        if self.reason is not None:
            ends_run |= self.out_of_room
            return Outcome(self.item, "failed", reason=self.reason, seconds=self.seconds, ends_run=ends_run)
        if self.was_there is not None:
            return Outcome(self.item, "there", self.was_there)
        if self.record is not None:
            return Outcome(self.item, "made", self.record, seconds=self.seconds)
        return None


def _prepare(pipeline: Pipeline, item: Item, picture: Image.Image | None = None) -> Shot:
    def prepare() -> Shot:
        image = read_image(item.image_path)
        return pipeline.prepare(image, item.settings, picture=picture, input_path=item.image_path)

    return _trying_twice(prepare, pipeline)


def _generate_alone(pipeline: Pipeline, shot: Shot) -> Clip:
    return _trying_twice(lambda: pipeline.take([shot])[0].clip(), pipeline)


def _generate_all(pipeline: Pipeline, jobs: Sequence[_Job]) -> None:
    """Give every job its clip, those of one kind together."""
    by_kind = defaultdict(list)
    for job in jobs:
        assert job.shot is not None
        by_kind[job.shot.kind].append(job)
    for group in by_kind.values():
        _generate_together(pipeline, group)


def _generate_together(pipeline: Pipeline, jobs: Sequence[_Job]) -> None:
    """Give jobs of one kind their clips; half of them at a time where that fails, until one alone is to blame."""
    if len(jobs) == 1:
        (job,) = jobs
        with job.step():
            assert job.shot is not None
            job.clip = _generate_alone(pipeline, job.shot)
        if job.clip is None:
            pipeline.give_back_memory()
        return
    start = time.monotonic()
    try:
        takes = pipeline.take([job.shot for job in jobs if job.shot is not None])
        clips = [take.clip() for take in takes]
    except Exception as error:
        pipeline.generator.progress.say(f"{len(jobs)} clips at once failed, now half as many: {in_one_line(error)}")
        ran_out = is_out_of_memory(error)
    else:
        for job, clip in zip(jobs, clips, strict=True):
            job.clip = clip
            job.seconds += (time.monotonic() - start) / len(jobs)
        return
    if ran_out:  # out here, where the error no longer holds on to what filled it
        pipeline.give_back_memory()
    half = len(jobs) // 2
    _generate_together(pipeline, jobs[:half])
    _generate_together(pipeline, jobs[half:])


def _save(pipeline: Pipeline, clip: Clip, item: Item, request: Request, aside: Path) -> ClipPaths:
    def save() -> ClipPaths:
        return save_clip(clip.frames, clip.record, aside, item.stem, request.formats, request.quality)

    with pipeline.generator.progress.stage("writing", total=1, unit="clip"):
        return _trying_twice(save, pipeline)


def _trying_twice(work: Callable[[], T], pipeline: Pipeline) -> T:
    """What the work returns; once more where it fails for a reason that may pass."""
    try:
        return work()
    except Exception as error:
        if not _may_pass(error):
            raise
        pipeline.generator.progress.say(f"trying again: {in_one_line(error)}")
    pipeline.give_back_memory()  # outside of except, where the error would still hold on to what filled it
    time.sleep(SECONDS_BEFORE_RETRY)
    return work()


def _may_pass(error: Exception) -> bool:
    return bool(error_numbers(error) & TRANSIENT) or is_out_of_memory(error)
