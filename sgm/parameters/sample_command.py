"""The command line of `sample.py`: its parameters in groups, and what it prints before the work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from ..config import RELEASES, load_config
from ..progress import print_safely
from ..storage.files import is_checkout
from . import command_line
from .command_line import Command
from .request import Request, make_request
from .sampling import SamplingParameters, ignored_parameters

# From the most to the least commonly needed; every parameter is in one group.
GROUPS = {
    "What to make": ("input_path", "version", "output_folder", "seed", "num_frames", "width", "height", "recursive"),
    "Motion": ("prompt", "motion_bucket_id", "fps_id", "fps", "cond_aug"),
    "Objects and cameras": ("elevations_deg", "azimuths_deg", "image_frame_ratio"),
    "Sharper and smoother": ("enhance", "enhance_size", "out_fps", "interpolator", "pingpong"),
    "Output": ("formats", "quality"),
    "Fidelity and speed": (
        *("preset", "num_steps", "schedule", "sampler", "guidance_interval", "cache_interval", "decode"),
        *("compile", "batch_size"),
    ),
    "Device and memory": ("device", "precision", "fp8", "memory", "decoding_t"),
    "Weights": ("checkpoint", "text_adapter", "interpolator_weights", "download", "config"),
    "Ray clusters": ("engine", "ray_address", "gpus_per_worker", "cpus_per_worker"),
    "Reproducing and diagnosing": ("from_record", "verbose"),
}
VERSION_ROW = "  {:20}  {:>6}  {:>5}  {:>9}  {}"
PROGRAM = "python sample.py" if is_checkout() else "python -m sgm"  # an installed package has no sample.py
EXAMPLES = f"""\
Examples:

  {PROGRAM} photo.jpg --version svd_tiny --out_fps 24
  {PROGRAM} --input_path photo.jpg --motion_bucket_id 180 --seed 7
  {PROGRAM} --input_path object.png --version sv3d_p --elevations_deg [10,15,20,15,10,5,0]
  {PROGRAM} --input_path photos/ --formats mp4,gif"""


def _make_request(given: Mapping[str, str]) -> Request:
    """The request, with a warning for each parameter that its version ignores."""
    request = make_request(given)
    ignored = ignored_parameters(request.model)
    for name in [name for name in given if name in ignored]:
        print_safely(f"warning: {request.version} ignores {name}: {ignored[name]}", sys.stderr)
    return request


def _versions_and_examples() -> str:
    rows = [VERSION_ROW.format("", "frames", "steps", "size", "weights")]
    for version, release in RELEASES.items():
        config = load_config(version)
        size, weights = f"{config.width}x{config.height}", release.repository or "included"
        rows.append(VERSION_ROW.format(version, config.num_frames, config.num_steps, size, weights))
    return "Versions, and where on huggingface.co their weights are:\n\n" + "\n".join(rows) + "\n\n" + EXAMPLES


def _values(request: Request) -> str:
    everything = vars(request) | vars(request.sampling) | request.settings.as_parameters()
    return "\n".join(f"{name}: {everything[name]}" for names in GROUPS.values() for name in names)


SAMPLE = Command[Request](
    usage=f"{PROGRAM} [INPUT_PATH]",
    purpose="Makes a video from an image: a photo comes to life (svd), or a camera circles an object (sv3d).",
    kinds=(Request, SamplingParameters),
    make=_make_request,
    leading=("input_path",),
    groups=GROUPS,
    example="--input_path photo.jpg, lists without spaces or in quotes, as in --elevations_deg [10,15,10]",
    more_help=_versions_and_examples,
    kept="finished clips are kept",
)


def run(work: Callable[[Request], int], words: Sequence[str] | None = None) -> int:
    """Run `work` on the request that the words describe; returns the exit code (see `command_line.run`)."""

    def say_values_and_work(request: Request) -> int:
        if request.verbose:
            print_safely(_values(request), sys.stderr)
        return work(request)

    return command_line.run(SAMPLE, say_values_and_work, words)
