"""Turn an image, or every image of a folder, into a video: `python sample.py --help` explains every parameter."""

from __future__ import annotations

import sys
import time

from sgm.checkpoint.finding import find_checkpoint
from sgm.command_line import run
from sgm.errors import UserError
from sgm.fitting import fit
from sgm.inputs.image import find_images, read_image
from sgm.outputs.clip_files import make_output_folder, save_clip
from sgm.progress import Progress
from sgm.remake import check_unchanged
from sgm.request import Request


def sample(request: Request) -> int:
    """Make a clip from every image that is asked for. Returns 0, or 1 where an image of a folder had to be skipped."""
    progress = Progress()
    checkpoint = find_checkpoint(request.version, request.checkpoint, download=request.download)
    if request.from_record is not None:
        check_unchanged(request.from_record, image_path=request.input_path, checkpoint=checkpoint, model=request.model)
    images = find_images(request.input_path)
    in_folder = request.input_path.is_dir()
    picture = None
    if not in_folder:  # what is wrong with a single image is told before the model is loaded
        with progress.stage("fitting", total=1, unit="image"):
            picture = fit(read_image(images[0]), request.model, request.sampling)
    make_output_folder(request.output_folder)

    from sgm.pipeline import load  # only now: torch takes seconds to import

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
    skipped = 0
    for path in images:
        start = time.monotonic()
        try:
            image = read_image(path)
            clip = pipeline(image, picture=picture, input_path=path, fps=request.fps, **vars(request.sampling))
        except UserError as error:
            if not in_folder:
                raise
            progress.say(f"skipped {path.name}: {error}")
            skipped += 1
            continue
        with progress.stage("writing", total=1, unit="clip"):
            files = save_clip(clip.frames, clip.record, request.output_folder, path.stem, request.fps)
        num_frames, height, width, _ = clip.frames.shape
        seconds, plural = time.monotonic() - start, "" if num_frames == 1 else "s"
        sys.stdout.write(f"{files.video}: {num_frames} frame{plural}, {width}x{height}, {seconds:.1f} s\n")
        sys.stdout.flush()
    return 1 if skipped else 0


if __name__ == "__main__":
    sys.exit(run(sample))
