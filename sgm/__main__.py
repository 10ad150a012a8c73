"""Turn an image, or as many as you like, into videos: `python -m sgm --help` explains every parameter."""

from __future__ import annotations

import sys
import time
from functools import partial

from .batch.items import is_single, plan_items
from .batch.make import load_pipeline, make_clip
from .batch.ray_engine import make_on_ray, prepared_for_ray
from .batch.report import clip_line
from .batch.resume import check_unchanged
from .batch.run import make_here, run_batch
from .checkpoint.finding import find_checkpoint
from .generation.fitting import fit
from .inputs.image import read_image
from .outputs.clip_files import make_output_folder, new_key
from .outputs.publishing import clear_leftovers, workplace
from .parameters.request import Request
from .parameters.sample_command import run
from .progress import Progress


def sample(request: Request) -> int:
    """Make the clips that are asked for. Returns 0, or 1 where some of a batch could not be made."""
    progress = Progress()
    if request.engine == "ray":
        request = prepared_for_ray(request)
    find_weights = partial(find_checkpoint, request.version, request.checkpoint, download=request.download)
    if request.from_record is not None:
        image_path, checkpoint = request.input_path, find_weights()
        check_unchanged(request.from_record, image_path=image_path, checkpoint=checkpoint, model=request.model)
    items = plan_items(request, warn=progress.say)  # a list's mistakes are told before anything is fetched
    checkpoint = find_weights()

    if not is_single(request):
        make_output_folder(request.output_folder)
        engine = make_on_ray if request.engine == "ray" else make_here
        make = partial(engine, request=request, checkpoint=checkpoint, progress=progress)
        return run_batch(items, request, checkpoint, make, progress)
    (item,) = items
    with progress.stage("fitting", total=1, unit="image"):  # what is wrong with the image is told before loading
        picture = fit(read_image(item.image_path), request.model, request.settings.framing)
    make_output_folder(request.output_folder)
    clear_leftovers(request.output_folder)
    pipeline = load_pipeline(request, checkpoint, progress)
    start = time.monotonic()
    with workplace(request.output_folder, new_key()) as aside:
        assert aside is not None, "nobody else has this key"
        clip = make_clip(pipeline, item, request, aside, picture)
    progress.print(clip_line(clip.record, request.formats, time.monotonic() - start))
    return 0


if __name__ == "__main__":
    sys.exit(run(sample))
