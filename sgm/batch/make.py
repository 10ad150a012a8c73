"""Making items, in a process that loads the model once: claimed, fitted, generated, saved, and what came of each.

This needs nothing but the items, the request and the files, so any number of processes can do it side by side.
"""

from __future__ import annotations

import errno
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image

from ..checkpoint.files import Checkpoint
from ..errors import error_numbers, in_one_line, is_out_of_memory, is_out_of_room
from ..generation.fitting import fit
from ..inputs.image import read_image
from ..outputs.clip_files import ClipPaths, make_output_folder, new_key, save_clip
from ..outputs.publishing import workplace
from ..parameters.request import Request
from ..progress import Progress
from ..stages import Stages
from .items import Item
from .outcome import Outcome
from .resume import Records, claim_key

if TYPE_CHECKING:
    import torch

    from ..generation.pipeline import Pipeline, Shot, Take

T = TypeVar("T")

# What another try a moment later may not meet again, as on a network share.
TRANSIENT = {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.ENETDOWN,
             errno.ENETUNREACH, errno.ECONNRESET, errno.ECONNABORTED, errno.EHOSTUNREACH}  # fmt: skip
SECONDS_BEFORE_RETRY = 1.0


class Maker:
    """Makes items in this process, with a model that is given, or loaded as the request says when one is needed."""

    def __init__(self, request: Request, checkpoint: Checkpoint, progress: Progress, pipeline: Pipeline | None = None):
        self.request, self.checkpoint, self.progress = request, checkpoint, progress
        self._pipeline = pipeline

    @property
    def pipeline(self) -> Pipeline:
        """The loaded model."""
        if self._pipeline is None:
            self._pipeline = load_pipeline(self.request, self.checkpoint, self.progress)
        return self._pipeline

    def at_once(self, num_items: int) -> int:
        """How many of so many items are made together."""
        if num_items == 1:  # nothing has to be loaded to know it
            return 1
        size = self.request.batch_size
        return self.pipeline.clips_with_room() if size == "auto" else int(size)

    def make(self, items: Sequence[Item]) -> list[Outcome | None]:
        """See to it that the items' clips are there; what came of each, None where another process is making it.

        Those of one kind (see `Shot`) are made together. Raises what goes wrong with the model's loading and with a
        single item; what fails on one of several is its outcome.
        """
        jobs = [_Job(item, self) for item in items]
        try:
            for job in jobs:
                with job.step():
                    job.begin()
            if begun := [job for job in jobs if job.fitted is not None]:
                self._generate(begun)
            for job in jobs:
                if job.take is not None:
                    with job.step():
                        job.save()
        finally:
            for job in jobs:
                with job.step():
                    job.claim.close()
        lost = any(job.reason is not None for job in jobs) and self.has_lost_its_device()
        return [job.outcome(ends_run=lost) for job in jobs]

    def has_lost_its_device(self) -> bool:
        """Whether a graphics card with the model answers no more (see `is_lost`), or its process has ended."""
        return self._pipeline is not None and (self._pipeline.is_lost or is_lost(self._pipeline.device))

    def trying_twice(self, work: Callable[[], T]) -> T:
        """What the work returns; once more where it fails for a reason that may pass."""
        try:
            return work()
        except Exception as error:
            if not _may_pass(error):
                raise
            self.progress.say(f"trying again: {in_one_line(error)}")
        self._give_back_memory()  # outside of except, where the error would still hold on to what filled it
        time.sleep(SECONDS_BEFORE_RETRY)
        return work()

    def _generate(self, jobs: Sequence[_Job]) -> None:
        """Give every job its clip, those of one kind together."""
        pipeline = self.pipeline
        by_kind = defaultdict(list)
        for job in jobs:
            with job.step():
                job.prepare(pipeline)
            if job.shot is not None:
                by_kind[job.shot.kind].append(job)
        for group in by_kind.values():
            self._generate_together(group)

    def _generate_together(self, jobs: Sequence[_Job]) -> None:
        """Give jobs of one kind their clips; half of them at a time where that fails, until one alone is to blame."""
        shots = [job.shot for job in jobs if job.shot is not None]
        if len(jobs) == 1:
            (job,) = jobs
            with job.step():
                (job.take,) = self.trying_twice(lambda: self.pipeline.take(shots))
            if job.take is None:
                self._give_back_memory()
            return
        start = time.monotonic()
        try:
            takes = self.pipeline.take(shots)
        except Exception as error:
            self.progress.say(f"{len(jobs)} clips at once failed, now half as many: {in_one_line(error)}")
            ran_out = is_out_of_memory(error)
        else:
            for job, take in zip(jobs, takes, strict=True):
                job.take = take
                job.seconds += (time.monotonic() - start) / len(jobs)
            return
        if ran_out:  # out here, where the error no longer holds on to what filled it
            self._give_back_memory()
        half = len(jobs) // 2
        self._generate_together(jobs[:half])
        self._generate_together(jobs[half:])

    def _give_back_memory(self) -> None:
        if self._pipeline is not None:
            self._pipeline.give_back_memory()


def load_pipeline(request: Request, checkpoint: Checkpoint, progress: Progress) -> Pipeline:
    """The model that the request asks for, loaded; says which device and memory mode were chosen for the user."""
    from ..generation.pipeline import load  # only now: torch takes seconds to import

    pipeline = load(
        request.version,
        checkpoint=checkpoint,
        config=request.config,
        text_adapter=request.text_adapter,
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


def is_gone(folder: Path) -> bool:
    """Whether a folder that was there has been moved or removed."""
    try:
        folder.stat()
    except FileNotFoundError:
        return True
    except OSError:  # a share that doesn't answer for a moment
        return False
    return False


@dataclass(frozen=True)
class _Fitted:
    """An item's image, what the model sees of it, and what fitting took."""

    image: Image.Image
    picture: Image.Image
    stages: Mapping[str, Any]


@dataclass
class _Job:
    """An item on its way to a clip. What fails on it is noted, and ends it alone."""

    item: Item
    maker: Maker
    claim: ExitStack = field(default_factory=ExitStack)
    aside: Path | None = None
    was_there: Path | None = None
    fitted: _Fitted | None = None
    shot: Shot | None = None
    take: Take | None = None
    saved: ClipPaths | None = None
    reason: str | None = None
    ends_run: bool = False
    seconds: float = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """A part of the work: its time counts, and its error is the reason why there is no clip."""
        start = time.monotonic()
        try:
            yield
        except Exception as error:  # one bad item never ends a run
            if self.item.single:
                raise
            if self.maker.request.verbose:
                traceback.print_exc()
            self._fail(error)
        self.seconds += time.monotonic() - start

    def begin(self) -> None:
        """Claim it, and fit its image where the clip is still to be made."""
        request, checkpoint = self.maker.request, self.maker.checkpoint
        folder = self.item.folder(request.output_folder)
        if self.item.single:  # what is wrong with its image is reported before there is an output folder
            self.fitted = self._fit()
        elif is_gone(request.output_folder):
            raise FileNotFoundError(errno.ENOENT, "gone", str(request.output_folder))
        key = new_key() if self.item.single else claim_key(self.item, request, checkpoint)

        def claim() -> Path | None:
            make_output_folder(folder)
            return self.claim.enter_context(workplace(folder, key))

        self.aside = self.maker.trying_twice(claim)
        if self.aside is None or self.fitted is not None:
            return
        self.was_there = Records(request, checkpoint).find(self.item)
        if self.was_there is None:
            self.fitted = self._fit()

    def prepare(self, pipeline: Pipeline) -> None:
        """Make the shot of what was fitted."""
        assert self.fitted is not None
        item, fitted = self.item, self.fitted
        shot = pipeline.prepare(fitted.image, item.settings, picture=fitted.picture, input_path=item.image_path)
        self.shot = replace(shot, stages=fitted.stages)

    def save(self) -> None:
        """Decode the clip, write its files as the frames come, and give them their names."""
        take, request = self.take, self.maker.request
        assert take is not None
        assert self.aside is not None
        aside, name = self.aside, self.item.stem

        def save() -> ClipPaths:
            return save_clip(take.frames(), take.record, aside, name, request.formats, request.quality)

        self.saved = self.maker.trying_twice(save)
        self.take = None  # the latents' memory is the next clip's

    def outcome(self, *, ends_run: bool) -> Outcome | None:
        """What came of it; `ends_run` is whether a failure ends the run in any case."""
        if self.reason is not None:
            ends_run |= self.ends_run
            return Outcome(self.item, "failed", reason=self.reason, seconds=self.seconds, ends_run=ends_run)
        if self.was_there is not None:
            return Outcome(self.item, "there", self.was_there)
        if self.saved is not None:
            assert self.shot is not None
            frames, height, width, _ = self.shot.finisher.frames_shape
            plural = "" if frames == 1 else "s"
            shown = f"{self.saved.main}: {frames} frame{plural}, {width}x{height}, {self.seconds:.1f} s"
            return Outcome(self.item, "made", self.saved.record, shown, seconds=self.seconds)
        return None

    def _fail(self, error: Exception) -> None:
        reason = in_one_line(error)
        if is_gone(folder := self.maker.request.output_folder):
            reason, self.ends_run = f"output_folder {folder} was moved or removed meanwhile", True
        self.reason, self.fitted, self.shot, self.take = self.reason or reason, None, None, None
        self.ends_run |= is_out_of_room(error)

    def _fit(self) -> _Fitted:
        """The item's picture as the model sees it; the one place where it comes from."""
        model, stages = self.maker.request.model, Stages()

        def read_and_fit() -> tuple[Image.Image, Image.Image]:
            image = read_image(self.item.image_path)
            return image, fit(image, model, self.item.settings.framing)

        with self.maker.progress.stage("fitting", total=1, unit="image"), stages.measure("fitting"):
            image, picture = self.maker.trying_twice(read_and_fit)
        return _Fitted(image, picture, stages.measured)


def _may_pass(error: Exception) -> bool:
    return bool(error_numbers(error) & TRANSIENT) or is_out_of_memory(error)
