"""What a user requests: one run of the command line, checked and frozen before anything heavy is imported.

The fields document themselves: the checks, the error messages and `--help` come from their declarations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import RELEASES, ModelConfig, load_config
from ..errors import UserError, unknown_parameter
from ..outputs.clip_files import DEFAULT_FORMATS, DEFAULT_QUALITY, FORMATS
from ..storage.files import example_folder, output_folder
from .choices import MEMORY_MODES, compile_parameter, device_parameter, fp8_parameter, precision_parameter
from .devices import check_shares
from .parameter import (
    NAME,
    NUMBER,
    PATH,
    TRUTH,
    WHOLE,
    Kind,
    kind_of_device,
    parameter,
    parameters_of,
    read_fields,
)
from .remake import MAY_DIFFER, recorded_parameters
from .sampling import SamplingParameters, SamplingSettings
from .text_adapter import with_text_adapter

MAX_BATCH_SIZE = 64
ELSEWHERE = {  # what other programs call a parameter
    "text": "prompt",
    "image": "input_path",
    "image_path": "input_path",
    "input": "input_path",
    "i": "input_path",
    "output": "output_folder",
    "o": "output_folder",
    "steps": "num_steps",
    "num_inference_steps": "num_steps",
    "frames": "num_frames",
    "model": "version",
    "resolution": "width and height",
    "size": "width and height",
    "noise_aug_strength": "cond_aug",
    "decode_chunk_size": "decoding_t",
}
HINTS = {name: f"did you mean {ours}?" for name, ours in ELSEWHERE.items()}


def _read_formats(value: Any) -> tuple[str, ...]:
    """Names of formats, as a list or as text with commas; in the order of `FORMATS`, each once."""
    words = [word.strip() for word in value.strip("[]()").split(",")] if isinstance(value, str) else list(value)
    if not words or not set(words) <= FORMATS.keys():
        raise ValueError
    return tuple(name for name in FORMATS if name in words)


def _read_batch_size(value: Any) -> int | str:
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not 1 <= (number := int(value)) <= MAX_BATCH_SIZE:
        raise ValueError
    return number


BATCH_SIZE = Kind(_read_batch_size, f"auto, or a whole number from 1 to {MAX_BATCH_SIZE}", "N|auto")
FORMATS_KIND = Kind(_read_formats, f"one or more of {','.join(FORMATS)}", "A,B,...")


@dataclass(frozen=True)
class Request:
    """One run of `sample.py`: what to make clips from, with which model, where they go, and how they are sampled.

    After construction `input_path` and `output_folder` are resolved for the version; `settings` is `sampling` resolved.
    Raises UserError for invalid values; whether the files exist is checked by their readers.
    """

    input_path: Path = parameter(
        None,
        PATH,
        "An image, or a video, whose first frame is used; or many, of which a rerun makes only the missing ones: a"
        " folder of images, a quoted pattern such as 'shots/*.png', a .txt file with one path per line, or a .jsonl"
        " file with one object per line: input_path and, optionally, output_name and any parameter of how the clip is"
        " made. Relative paths in a file are relative to that file's folder.",
        default_text="assets/test_image.png; assets/object.png for sv3d",
    )
    recursive: bool = parameter(
        False,
        TRUTH,
        "Include the images in a folder's subfolders; their clips go into subfolders of the same names.",
        default_text="no",
    )
    version: str = parameter(
        "svd_xt",
        NAME,
        "Which model to use. The svd versions set a photo in motion, the sv3d versions circle an object; the"
        " tiny ones are included and run anywhere.",
        choices=tuple(RELEASES),
    )
    output_folder: Path = parameter(
        None,
        PATH,
        "Where the clips go: NAME.mp4, its frames as NAME/0000.jpg ..., and NAME.json, the record of how it was made."
        " Nothing is ever overwritten.",
        default_text="outputs/VERSION in the current folder",
    )
    formats: tuple[str, ...] = parameter(
        DEFAULT_FORMATS,
        FORMATS_KIND,
        "What to write besides the record: a video, animations, the individual frames as JPEGs.",
        default_text=",".join(DEFAULT_FORMATS),
    )
    quality: int = parameter(
        DEFAULT_QUALITY,
        WHOLE,
        "The picture quality of MP4, WebP and JPEGs, on JPEG's scale; below 95 the watermark may be lost.",
        low=1,
        high=100,
    )
    device: str | None = device_parameter(several=True)
    precision: str | None = precision_parameter()
    fp8: str = fp8_parameter()
    memory: str = parameter(
        "auto",
        NAME,
        "How much memory to use, for the same clip: high is the fastest; low does more things one after another, and"
        " keeps on a graphics card only the model in use; lowest keeps only parts of it there. auto takes the first"
        " that fits.",
        choices=("auto", *MEMORY_MODES),
    )
    batch_size: int | str = parameter(
        1,
        BATCH_SIZE,
        "How many images of a batch, of the same size and number of frames, go through the network at once: faster on a"
        " graphics card that has room, and the same clips up to rounding. auto takes as many as fit.",
    )
    compile: bool = compile_parameter()
    engine: str = parameter(
        "local",
        NAME,
        "What makes the clips of a batch: this process (local), or workers on a Ray cluster, each with its own model"
        " (ray). The cluster's machines must see inputs, outputs, weights and this project at the same paths.",
        choices=("local", "ray"),
    )
    ray_address: str | None = parameter(
        None,
        NAME,
        "The cluster to use, from one of its machines: HOST:PORT of its head, or auto for the one running here.",
        default_text="a cluster of this machine alone, for the duration of the run",
    )
    gpus_per_worker: float | None = parameter(
        None,
        NUMBER,
        "How much of a graphics card a worker takes: 0.5 puts two workers on each. 0 computes on the processor.",
        low=0,
        high=1,
        default_text="1 if the cluster has graphics cards, else 0",
    )
    cpus_per_worker: int | None = parameter(
        None,
        WHOLE,
        "How many processor cores a worker takes.",
        low=1,
        high=1024,
        default_text="1 with a graphics card, else all cores of the smallest machine",
    )
    checkpoint: Path | None = parameter(
        None,
        PATH,
        "The model's weights: a .safetensors file, a folder in diffusers' layout, or OWNER/NAME[@REVISION] on"
        " huggingface.co, which is read from the cache.",
        default_text="checkpoints/VERSION.safetensors, bundled or your own, else the version's own repository",
    )
    interpolator_weights: Path | None = parameter(
        None,
        PATH,
        "The weights of interpolator ema_vfi, under the name that they were released by: ours_t.pkl for any out_fps;"
        " ours.pkl halves the time between frames, so it is exact for twice or four times as many. They are never"
        " downloaded.",
        default_text="the first of ours_t.pkl, ours.pkl, ours_small_t.pkl and ours_small.pkl in checkpoints/",
    )
    download: bool = parameter(
        False,
        TRUTH,
        "Download missing weights from their repository on huggingface.co. Nothing is downloaded without this.",
        default_text="no",
    )
    config: Path | None = parameter(
        None,
        PATH,
        "The YAML file that describes the model, for your own weights.",
        default_text="configs/VERSION.yaml of the project",
    )
    text_adapter: Path | None = parameter(
        None,
        PATH,
        "A .safetensors file with which an svd version reads prompts that it can't read by itself.",
        default_text="none",
    )
    from_record: Path | None = parameter(
        None,
        PATH,
        "Make a clip again from the NAME.json saved with it. With this, only output_folder, verbose, memory, compile,"
        " download, device (another kind draws different noise, in the precision that suits it) and, if the files have"
        " moved, input_path, checkpoint, text_adapter, interpolator_weights and config may be given.",
        default_text="none",
    )
    verbose: bool = parameter(
        False, TRUTH, "Print every parameter used, and the full traceback of an error.", default_text="no"
    )
    sampling: SamplingParameters = field(default_factory=SamplingParameters)
    settings: SamplingSettings = field(init=False, repr=False)
    model: ModelConfig = field(init=False, repr=False)

    def __post_init__(self) -> None:
        read_fields(self)
        _check_engine(self)
        model = load_config(self.version, self.config)
        if self.text_adapter is not None:
            model = with_text_adapter(model, self.text_adapter)
        example = "object.png" if model.input == "object" else "test_image.png"
        defaults = {
            "input_path": example_folder() / example,
            "output_folder": output_folder(self.version),
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "settings", self.sampling.resolved_for(model))
        if self.device is not None:
            check_shares(self.device, model, self.settings.num_frames, compile=self.compile)


def _check_engine(request: Request) -> None:
    if request.engine == "ray" and "," in (request.device or ""):
        raise UserError(f"device {request.device} is for one clip at a time, and engine ray for many: omit one of them")
    if request.engine != "ray":
        for name in ("ray_address", "gpus_per_worker", "cpus_per_worker"):
            if getattr(request, name) is not None:
                raise UserError(f"{name} is for --engine ray: add that, or omit {name}")


def make_request(given: Mapping[str, Any]) -> Request:
    """The request with the given parameters, by name, and the defaults for all others.

    Raises UserError for an unknown name, a bad value, and what may not be given with `from_record`.
    """
    of_sampling, of_request = parameters_of(SamplingParameters), parameters_of(Request)
    for name in given:
        if name not in of_sampling and name not in of_request:
            raise unknown_parameter(name, [*of_request, *of_sampling], hints=HINTS)
    if given.get("from_record") is not None:
        given = _with_record(given)
    sampling = SamplingParameters(**{name: value for name, value in given.items() if name in of_sampling})
    return Request(sampling=sampling, **{name: value for name, value in given.items() if name in of_request})


def _with_record(given: Mapping[str, Any]) -> dict[str, Any]:
    for name in given:
        if name not in (*MAY_DIFFER, "from_record"):
            raise UserError(
                f"{name} can't be given with from_record, which makes the same clip again: omit one of the two"
            )
    path = parameters_of(Request)["from_record"].read("from_record", given["from_record"])
    recorded = recorded_parameters(path, given)
    values = recorded | dict(given)
    if kind_of_device(values.get("device")) != kind_of_device(recorded.get("device")):
        values["precision"] = None  # a graphics card's may overflow elsewhere: use what suits the new device
    if values["input_path"] is None:
        raise UserError(f"the image of {path} came from memory, not from a file: give it with --input_path FILE")
    return values
