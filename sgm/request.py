"""What a user asks for, checked and frozen before anything heavy is imported.

`SamplingParameters` are the keywords of a `Pipeline`; a `Request` is one run of the command line. Both explain their
own fields: from these declarations come the checks, the error messages and `--help`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .config import ModelConfig, load_config
from .errors import UserError
from .inputs.image import MAX_OUTPUT_SIDE, fit_size
from .inputs.orbit import make_orbit
from .outputs.clip_files import DEFAULT_FORMATS, DEFAULT_QUALITY, FORMATS
from .parameter import ANGLES, INTERVAL, NAME, NUMBER, PATH, TRUTH, WHOLE, Kind, parameter, parameters_of, read_fields
from .presets import PRESETS
from .remake import MAY_DIFFER, kind_of_device, recorded_parameters
from .versions import RELEASES, did_you_mean

MAX_BATCH_SIZE = 64


def _read_device(value: Any) -> str:
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", value):
        raise ValueError
    return str(value)


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


DEVICE = Kind(_read_device, "cuda, cuda:1, mps or cpu", "DEVICE")
BATCH_SIZE = Kind(_read_batch_size, f"auto, or a whole number from 1 to {MAX_BATCH_SIZE}", "N|auto")
FORMATS_KIND = Kind(_read_formats, f"one or more of {','.join(FORMATS)}", "A,B,...")
PROJECT_FOLDER = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class SamplingParameters:
    """How one image becomes a clip. None stands for what the version itself prescribes; `resolved_for` fills it in.

    Raises UserError for a value of the wrong kind or out of its range.
    """

    num_frames: int | None = parameter(
        None,
        WHOLE,
        "How many frames to make. The version's own number works best; more frames need more memory.",
        low=1,
        high=1024,
        default_text="the version's own",
    )
    num_steps: int | None = parameter(
        None,
        WHOLE,
        "How many denoising steps to take: more are slower and, up to a point, finer.",
        low=1,
        high=1000,
        default_text="the version's own, or the preset's share of them",
    )
    preset: str = parameter(
        "exact",
        NAME,
        "How far to trade fidelity for speed: it sets the steps, the schedule, the sampler and the cache, unless these"
        " are given. exact is the released sampler; balanced takes half the time, fast a sixth to a fourth.",
        choices=tuple(PRESETS),
    )
    schedule: str | None = parameter(
        None,
        NAME,
        "Which noise levels the steps visit: karras (the released sampler's), or ays (Align Your Steps), better for"
        " about 15 steps or fewer.",
        choices=("karras", "ays"),
        default_text="the preset's: karras in exact",
    )
    sampler: str | None = parameter(
        None,
        NAME,
        "How a step is taken: euler (the released sampler), heun (finer, two calls of the network a step) or dpmpp_2m"
        " (finer for one call).",
        choices=("euler", "heun", "dpmpp_2m"),
        default_text="the preset's: euler in exact",
    )
    guidance_interval: tuple[float, float] | None = parameter(
        None,
        INTERVAL,
        "The lowest and the highest noise level (0 to 700) at which guidance is computed: a step outside takes half"
        " the time.",
        low=0,
        high=1000,
        default_text="all",
    )
    cache_interval: int | None = parameter(
        None,
        WHOLE,
        "Compute the network's deep layers at every so-manieth step only, and keep what they gave for those between:"
        " quicker, and further from the exact clip.",
        low=1,
        high=100,
        default_text="the preset's: 1, each step, in exact",
    )
    fps_id: int = parameter(
        6,
        WHOLE,
        "The frame rate that the motion is made for: low values move further from frame to frame, high ones less."
        " The video plays at this rate too, unless --fps says otherwise.",
        low=1,
        high=60,
    )
    motion_bucket_id: int = parameter(127, WHOLE, "How much moves: 0 is nearly still, 255 the most.", low=0, high=255)
    cond_aug: float | None = parameter(
        None,
        NUMBER,
        "How much noise is added to the input image: more frees the motion, less keeps the image's details.",
        low=0,
        high=10,
        default_text="0.02; 1e-05 for sv3d",
    )
    seed: int = parameter(
        23,
        WHOLE,
        "The number that the random noise grows from: the same seed makes the same clip again, another one another.",
        low=0,
        high=2**63 - 1,
    )
    decoding_t: int = parameter(
        14,
        WHOLE,
        "How many frames to decode at a time: fewer need less memory; 1 needs the least and may flicker.",
        low=1,
        high=1024,
    )
    decode: str = parameter(
        "chunked",
        NAME,
        "Whether each decoding_t frames are decoded by themselves (chunked, as released), or all frames with knowledge"
        " of each other, without seams between chunks (seamless).",
        choices=("chunked", "seamless"),
    )
    elevations_deg: float | tuple[float, ...] = parameter(
        10.0,
        ANGLES,
        "How high the camera stands: one angle for the whole orbit, one a frame, or a few key angles that the frames"
        " between are interpolated from. 0 looks from the side, 90 from straight above (sv3d_p and sv3d_tiny only).",
        low=-90,
        high=90,
    )
    azimuths_deg: tuple[float, ...] | None = parameter(
        None,
        ANGLES,
        "Where around the object the camera stands, in degrees: one angle a frame or a few key angles"
        " (sv3d_p and sv3d_tiny only).",
        default_text="one even turn around the object",
    )
    image_frame_ratio: float | None = parameter(
        None,
        NUMBER,
        "How much of the frame the object fills: 1 touches the frame's edges, 0.5 fills half of it (sv3d only).",
        low=0.05,
        high=10,
        default_text="as large as in the image",
    )
    width: int | None = parameter(
        None,
        WHOLE,
        "The video's width in pixels, divisible by 64 (by less for the tiny versions).",
        low=8,
        high=MAX_OUTPUT_SIDE,
        default_text="by the image's shape, within the version's own size",
    )
    height: int | None = parameter(
        None,
        WHOLE,
        "The video's height in pixels, like the width; where only one is given, the other follows the image's shape.",
        low=8,
        high=MAX_OUTPUT_SIDE,
        default_text="as for the width",
    )

    def __post_init__(self) -> None:
        read_fields(self)
        if isinstance(self.azimuths_deg, float):
            object.__setattr__(self, "azimuths_deg", (self.azimuths_deg,))

    def resolved_for(self, config: ModelConfig) -> SamplingParameters:
        """The same with what the version prescribes filled in, and checked against the version.

        Width and height stay None for the svd family, where they follow the image. Raises UserError for more angles
        than frames, and for sizes that the version can't make.
        """
        trained_size = (config.width, config.height)
        sides = (self.width or config.width, self.height or config.height)
        fit_size(trained_size, trained_size, config.size_multiple, *sides)
        preset = PRESETS[self.preset]
        resolved = replace(
            self,
            num_frames=self.num_frames or config.num_frames,
            num_steps=self.num_steps or preset.num_steps(config.num_steps),
            schedule=self.schedule or preset.schedule,
            sampler=self.sampler or preset.sampler,
            cache_interval=self.cache_interval or preset.cache_interval,
            cond_aug=config.cond_aug if self.cond_aug is None else self.cond_aug,
        )
        if config.family == "sv3d":
            if self.width and self.height and self.width != self.height:
                raise UserError(
                    f"{config.version} makes square videos, not {self.width}x{self.height}: give width or height alone"
                )
            side = self.width or self.height or config.width
            resolved = replace(resolved, width=side, height=side)
        if config.takes_angles:
            assert resolved.num_frames is not None
            make_orbit(resolved.num_frames, resolved.elevations_deg, resolved.azimuths_deg)
        return resolved


def ignored_parameters(config: ModelConfig) -> dict[str, str]:
    """Names of the sampling parameters that a version makes no use of, each with the reason."""
    used = {scalar.name for scalar in config.scalars}
    ignored = {}
    if "fps_id" not in used:
        ignored["fps_id"] = "its motion is an orbit, so fps_id sets only how fast the video plays"
    if "motion_bucket_id" not in used:
        ignored["motion_bucket_id"] = "its motion is an orbit"
    if not config.takes_angles:
        reason = "only sv3d_p and sv3d_tiny take camera angles"
        ignored |= {"elevations_deg": reason, "azimuths_deg": reason}
    if config.family != "sv3d":
        ignored["image_frame_ratio"] = "only the sv3d versions cut out and frame an object"
    return ignored


@dataclass(frozen=True)
class Request:
    """One run of `sample.py`: what to make clips from, with which model, where they go, and how they are sampled.

    After construction `input_path`, `output_folder`, `fps` and `sampling` are resolved for the version; `asked` is the
    sampling as it was given. Raises
    UserError for anything that is wrong with the values; whether the files exist is for their readers to say.
    """

    input_path: Path = parameter(
        None,
        PATH,
        "An image; or many, where a rerun makes only what is missing: a folder (every jpg, jpeg, png, webp, bmp and"
        " tiff in it), a pattern in quotes such as 'shots/*.png', a .txt file with a path a line, or a .jsonl file with"
        " an object a line: input_path and, where wanted, output_name, fps and any parameter of how the clip is made."
        " Relative paths in a file are relative to the file's folder.",
        default_text="assets/test_image.png; assets/object.png for sv3d",
    )
    recursive: bool = parameter(
        False,
        TRUTH,
        "Take the images of a folder's subfolders too; their clips go into subfolders of the same names.",
        default_text="no",
    )
    version: str = parameter(
        "svd_xt",
        NAME,
        "Which model to use. The svd versions set a photo in motion, the sv3d versions turn around an object;"
        " the tiny ones are in the box and run anywhere.",
        choices=tuple(RELEASES),
    )
    output_folder: Path = parameter(
        None,
        PATH,
        "Where the clips go: NAME.mp4, its frames as NAME/0000.jpg ..., and NAME.json, which tells how it was made."
        " Nothing is ever overwritten.",
        default_text="outputs/VERSION in the current folder",
    )
    formats: tuple[str, ...] = parameter(
        DEFAULT_FORMATS,
        FORMATS_KIND,
        "What to write beside the record: a video, animations, the single frames as JPEGs.",
        default_text=",".join(DEFAULT_FORMATS),
    )
    quality: int = parameter(
        DEFAULT_QUALITY,
        WHOLE,
        "How well MP4, WebP and JPEGs keep the picture, as JPEG counts; below 95 the watermark may get lost.",
        low=1,
        high=100,
    )
    fps: float = parameter(
        None, NUMBER, "How many frames a second the video plays at.", low=0.1, high=240, default_text="fps_id"
    )
    device: str | None = parameter(
        None,
        DEVICE,
        "What to compute on: a graphics card (cuda; cuda:1 is the second one; mps on a Mac) or the processor (cpu).",
        default_text="cuda where there is one, else mps or cpu",
    )
    precision: str | None = parameter(
        None,
        NAME,
        "The kind of number the UNet and the image tower compute with: in fp16 and bf16 these two need half the"
        " memory of fp32. Decoding, which needs the most, is always in fp32.",
        choices=("fp16", "bf16", "fp32"),
        default_text="what suits the device",
    )
    fp8: str = parameter(
        "off",
        NAME,
        "Keep the UNet's weights in 8 bits (weights), which takes half of fp16's memory; or multiply in 8 bits, too"
        " (linears), on graphics cards that can. The clip differs a little.",
        choices=("off", "weights", "linears"),
    )
    memory: str = parameter(
        "auto",
        NAME,
        "How much memory to use, for the same clip: high is the quickest; low does more things one after another, and"
        " keeps on a graphics card only the model at work; lowest only parts of it. auto takes the first that there is"
        " room for.",
        choices=("auto", "high", "low", "lowest"),
    )
    batch_size: int | str = parameter(
        1,
        BATCH_SIZE,
        "How many images of a batch, of one size and number of frames, go through the network at once: quicker on a"
        " graphics card that has room, and the same clips to rounding. auto takes as many as there is room for.",
    )
    compile: bool = parameter(
        False,
        TRUTH,
        "Compile the network's blocks first: the first clip takes longer, the others less. For many clips of one size.",
        default_text="no",
    )
    engine: str = parameter(
        "local",
        NAME,
        "Who makes the clips of a batch: this process (local), or workers on a Ray cluster, each with a model of its"
        " own (ray). The cluster's machines must see inputs, outputs, weights and this project under the same paths.",
        choices=("local", "ray"),
    )
    ray_address: str | None = parameter(
        None,
        NAME,
        "The cluster to use, from one of its machines: HOST:PORT of its head, or auto for the one that runs here.",
        default_text="a cluster of this machine alone, for the time of the run",
    )
    gpus_per_worker: float | None = parameter(
        None,
        NUMBER,
        "How much of a graphics card a worker takes: 0.5 puts two on each. 0 computes on the processor.",
        low=0,
        high=1,
        default_text="1 where the cluster has graphics cards, else 0",
    )
    cpus_per_worker: int | None = parameter(
        None,
        WHOLE,
        "How many processor cores a worker takes.",
        low=1,
        high=1024,
        default_text="1 beside a graphics card, else all of the smallest machine",
    )
    checkpoint: Path | None = parameter(
        None,
        PATH,
        "The model's weights: a .safetensors file, a folder of diffusers' layout, or OWNER/NAME[@REVISION] of"
        " huggingface.co, which is looked for in its cache.",
        default_text="checkpoints/VERSION.safetensors of the project, else the version's own repository",
    )
    download: bool = parameter(
        False,
        TRUTH,
        "Fetch weights that are not there from their repository on huggingface.co. Nothing is fetched without this.",
        default_text="no",
    )
    config: Path | None = parameter(
        None,
        PATH,
        "The YAML file that describes the model, for weights of your own.",
        default_text="configs/VERSION.yaml of the project",
    )
    from_record: Path | None = parameter(
        None,
        PATH,
        "Make a clip again from the NAME.json beside it. Beside this only output_folder, verbose, memory, compile,"
        " download, device (another kind draws other noise, in the precision that suits it) and, where the files have"
        " moved, input_path, checkpoint and config may be given.",
        default_text="none",
    )
    verbose: bool = parameter(
        False, TRUTH, "Say every parameter that is used, and show the whole traceback of an error.", default_text="no"
    )
    sampling: SamplingParameters = field(default_factory=SamplingParameters)
    asked: SamplingParameters = field(init=False, repr=False)
    model: ModelConfig = field(init=False, repr=False)

    def __post_init__(self) -> None:
        read_fields(self)
        _check_engine(self)
        model = load_config(self.version, self.config)
        example = "object.png" if model.family == "sv3d" else "test_image.png"
        defaults = {
            "input_path": PROJECT_FOLDER / "assets" / example,
            "output_folder": Path("outputs", self.version),
            "fps": float(self.sampling.fps_id),
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "asked", self.sampling)
        object.__setattr__(self, "sampling", self.sampling.resolved_for(model))


def _check_engine(request: Request) -> None:
    if request.engine != "ray":
        for name in ("ray_address", "gpus_per_worker", "cpus_per_worker"):
            if getattr(request, name) is not None:
                raise UserError(f"{name} is for --engine ray: add that, or leave {name} away")


def make_request(given: Mapping[str, Any]) -> Request:
    """The request that holds the given parameters, by name, and the defaults of all others.

    Raises UserError for an unknown name, a bad value, and what may not be given beside `from_record`.
    """
    of_sampling, of_request = parameters_of(SamplingParameters), parameters_of(Request)
    for name in given:
        if name not in of_sampling and name not in of_request:
            hint = did_you_mean(name, [*of_request, *of_sampling])
            raise UserError(f"there is no parameter {name!r}{hint}; --help lists them all")
    if given.get("from_record") is not None:
        given = _with_record(given)
    sampling = SamplingParameters(**{name: value for name, value in given.items() if name in of_sampling})
    return Request(sampling=sampling, **{name: value for name, value in given.items() if name in of_request})


def _with_record(given: Mapping[str, Any]) -> dict[str, Any]:
    for name in given:
        if name not in (*MAY_DIFFER, "from_record"):
            raise UserError(
                f"{name} can't be given beside from_record, which makes the same clip again: leave one of the two away"
            )
    path = parameters_of(Request)["from_record"].read("from_record", given["from_record"])
    recorded = recorded_parameters(path)
    values = recorded | dict(given)
    if kind_of_device(values.get("device")) != kind_of_device(recorded.get("device")):
        values["precision"] = None  # that of a graphics card may overflow elsewhere: what suits the new device
    if values["input_path"] is None:
        raise UserError(f"the image of {path} came from memory, not from a file: give it with --input_path FILE")
    known = parameters_of(SamplingParameters) | parameters_of(Request)
    if unknown := sorted(values.keys() - known.keys()):
        raise UserError(f"{path} has a parameter {unknown[0]!r} that this version of the program doesn't know")
    return values
