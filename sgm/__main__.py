"""Turn an image, or as many as you like, into videos: `python -m sgm --help` explains every parameter."""

from __future__ import annotations

import sys
from functools import partial

from .batch.items import plan_items
from .batch.ray_cluster import prepared_for_ray
from .batch.ray_engine import make_on_ray
from .batch.resume import check_unchanged
from .batch.run import make_here, run_batch
from .batch.weights import find_weights
from .parameters.request import Request
from .parameters.sample_command import run
from .progress import Progress


def sample(request: Request) -> int:
    """Make the clips that are asked for. Returns 0, or 1 where some of a batch could not be made."""
    progress = Progress()
    if request.engine == "ray":
        request = prepared_for_ray(request)

    # 1. What is to be made, so that a mistake costs no download.
    if request.from_record is not None:
        image_path, checkpoint = request.input_path, find_weights(request, [request.settings])
        check_unchanged(request.from_record, image_path=image_path, checkpoint=checkpoint, model=request.model)
    items = plan_items(request, warn=progress.say)
    if request.text_adapter is not None:
        from .checkpoint.text_adapter import check_text_adapter  # with torch, which other mistakes don't wait for

        check_text_adapter(request.text_adapter, request.model)

    # 2. With which weights.
    checkpoint = find_weights(request, [item.settings for item in items])

    # 3. Make it, here or on a cluster.
    engine = make_on_ray if request.engine == "ray" else make_here
    make = partial(engine, request=request, checkpoint=checkpoint, progress=progress)
    return run_batch(items, request, checkpoint, make, progress)


if __name__ == "__main__":
    sys.exit(run(sample))
