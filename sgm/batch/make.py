"""Making one item, in a process that has loaded the model once: claimed, made, saved, and what came of it.

This needs nothing but the item, the request and the files, so any number of processes can do it side by side.
"""

from __future__ import annotations

import errno
import gc
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from PIL import Image

from ..checkpoint.files import Checkpoint
from ..errors import in_one_line, is_out_of_memory
from ..inputs.image import read_image
from ..outputs.clip_files import ClipPaths, make_output_folder, save_clip
from ..outputs.publishing import workplace
from ..progress import Progress
from ..request import Request
from .done import Records, claim_key
from .items import Item

if TYPE_CHECKING:
    from ..pipeline import Clip, Pipeline

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
    """

    item: Item
    status: Literal["made", "there", "failed"]
    record: Path | None = None
    reason: str | None = None
    seconds: float = 0.0


def load_pipeline(request: Request, checkpoint: Checkpoint, progress: Progress) -> Pipeline:
    """The model that the request asks for, loaded; says what was chosen for want of a graphics card or of memory."""
    from ..pipeline import load  # only now: torch takes seconds to import

    pipeline = load(
        request.version,
        checkpoint=checkpoint,
        config=request.config,
        device=request.device,
        precision=request.precision,
        memory=request.memory,
        compiled=request.compile,
        progress=progress,
    )
    if request.device is None and pipeline.device.type != "cuda":
        progress.say(f"no CUDA device was found: computing on {pipeline.device} in {pipeline.precision}")
    if request.memory == "auto" and pipeline.placement.name != "high":
        progress.say(f"little memory is free: going on with --memory {pipeline.placement.name}")
    return pipeline


def make_clip(
    pipeline: Pipeline, item: Item, request: Request, aside: Path, picture: Image.Image | None = None
) -> ClipPaths:
    """Make an item's clip and save it beside the workplace `aside`; `picture` is the fitted image, where it is there.

    What may pass is tried twice. Raises what went wrong: UserError for an image that no clip can be made of, OSError
    for files, and whatever the model raises.
    """
    progress = pipeline.progress

    def generate() -> Clip:
        image = read_image(item.image_path)
        return pipeline(image, picture=picture, input_path=item.image_path, fps=item.fps, **vars(item.sampling))

    def save() -> ClipPaths:
        return save_clip(clip.frames, clip.record, aside, item.stem, request.formats, request.quality)

    clip = _trying_twice(generate, progress.say)
    with progress.stage("writing", total=1, unit="clip"):
        return _trying_twice(save, progress.say)


def make_item(pipeline: Pipeline, item: Item, request: Request, checkpoint: Checkpoint) -> Outcome | None:
    """See to it that the item's clip is there, and tell what came of it; None where another process is making it.

    Raises nothing but KeyboardInterrupt and the like.
    """
    start = time.monotonic()
    try:
        folder = item.folder(request.output_folder)
        make_output_folder(folder)
        with workplace(folder, claim_key(item, request, checkpoint)) as aside:
            if aside is None:
                return None
            if record := Records(request, checkpoint).find(item):
                return Outcome(item, "there", record)
            saved = make_clip(pipeline, item, request, aside)
    except Exception as error:  # one bad item never ends a run
        if request.verbose:
            traceback.print_exc()
        return Outcome(item, "failed", reason=in_one_line(error), seconds=time.monotonic() - start)
    return Outcome(item, "made", saved.record, seconds=time.monotonic() - start)


def _trying_twice(work: Callable[[], T], say: Callable[[str], object]) -> T:
    """What the work returns; once more where it fails for a reason that may pass."""
    try:
        return work()
    except Exception as error:
        if not _may_pass(error):
            raise
        say(f"trying again: {in_one_line(error)}")
    _free_memory()  # outside of except, where the error would still hold on to what filled it
    time.sleep(SECONDS_BEFORE_RETRY)
    return work()


def _may_pass(error: Exception) -> bool:
    reasons = (error, error.__cause__)  # a UserError may tell of an OSError
    transient = any(isinstance(reason, OSError) and reason.errno in TRANSIENT for reason in reasons)
    return transient or is_out_of_memory(error)


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules["torch"]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
