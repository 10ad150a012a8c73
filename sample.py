"""Turn an image, or as many as you like, into videos: `python sample.py --help` explains every parameter."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from sgm.batch.items import is_single, plan_items
from sgm.batch.make import make_clip
from sgm.batch.report import clip_line
from sgm.batch.run import run_batch
from sgm.command_line import run
from sgm.fitting import fit
from sgm.inputs.image import read_image
from sgm.outputs.clip_files import make_output_folder, new_key
from sgm.outputs.publishing import clear_leftovers, workplace
from sgm.progress import Progress
from sgm.remake import check_unchanged
from sgm.request import Request
from sgm.versions import find_checkpoint

if TYPE_CHECKING:
    from sgm.pipeline import Pipeline


def sample(request: Request) -> int:
    """Make the clips that are asked for. Returns 0, or 1 where some of a batch could not be made."""
    progress = Progress()
    if request.from_record is not None:
        recorded_checkpoint = request.checkpoint or find_checkpoint(request.version)
        check_unchanged(
            request.from_record,
            image_path=request.input_path,
            checkpoint_path=recorded_checkpoint,
            model=request.model,
        )
    items = plan_items(request, warn=progress.say)
    checkpoint = find_checkpoint(request.version, request.checkpoint)

    def load_pipeline() -> Pipeline:
        from sgm.pipeline import load  # only now: torch takes seconds to import

        pipeline = load(
            request.version,
            checkpoint=checkpoint,
            config=request.config,
            device=request.device,
            precision=request.precision,
            progress=progress,
        )
        if request.device is None and pipeline.device.type != "cuda":
            progress.say(f"no CUDA device was found: computing on {pipeline.device} in {pipeline.precision}")
        return pipeline

    if not is_single(request):
        make_output_folder(request.output_folder)
        return run_batch(items, request, checkpoint, load_pipeline, progress)
    (item,) = items
    with progress.stage("fitting", total=1, unit="image"):  # what is wrong with the image is told before loading
        picture = fit(read_image(item.image_path), request.model, request.sampling)
    make_output_folder(request.output_folder)
    clear_leftovers(request.output_folder)
    pipeline = load_pipeline()
    start = time.monotonic()
    with workplace(request.output_folder, new_key()) as aside:
        assert aside is not None, "nobody else has this key"
        clip = make_clip(pipeline, item, request, aside, picture)
    progress.print(clip_line(clip.record, request.formats, time.monotonic() - start))
    return 0


if __name__ == "__main__":
    sys.exit(run(sample))
