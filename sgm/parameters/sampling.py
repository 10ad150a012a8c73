"""How one image becomes a clip: the parameters, checked before anything heavy is imported, and the settings.

The fields of `SamplingParameters` document themselves: the checks, the error messages and `--help` come from their
declarations. Resolved for a version they become `SamplingSettings`, which leave nothing to decide.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..config import ModelConfig
from ..errors import UserError
from ..inputs.image import MAX_OUTPUT_SIDE, fit_size
from ..inputs.orbit import DEFAULT_ELEVATION_DEG, Orbit, make_orbit
from .choices import SAMPLERS, SCHEDULES
from .finishing import Finishing, FinishingParameters
from .parameter import ANGLES, INTERVAL, NAME, NUMBER, SEED, WHOLE, parameter, read_fields
from .presets import PRESETS
from .prompts import DEFAULT_FPS_ID, DEFAULT_MOTION_BUCKET_ID, PROMPT, resolve_motion

ALL_NOISE_LEVELS = (0.0, 1000.0)  # wider than any schedule


@dataclass(frozen=True)
class SamplingParameters(FinishingParameters):
    """How one image becomes a clip, as requested. None stands for the version's own value (see `resolved_for`).

    Raises UserError for a value of the wrong kind or out of its range.
    """

    prompt: str | None = parameter(
        None,
        PROMPT,
        "What moves, and how, in words. A version that reads text, by itself or with text_adapter, follows it as far as"
        " it knows the words. The other svd versions take only words of strength and speed (hold still, gentle, strong"
        " motion, slow, fast), which set motion_bucket_id and fps_id.",
        default_text="none",
    )
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
        " are given. exact is the released sampler; balanced takes half the time, fast a sixth to a quarter.",
        choices=tuple(PRESETS),
    )
    schedule: str | None = parameter(
        None,
        NAME,
        "Which noise levels the steps visit: karras (the released sampler's), or ays (Align Your Steps), better for"
        " about 15 steps or fewer.",
        choices=SCHEDULES,
        default_text="the preset's: karras in exact",
    )
    sampler: str | None = parameter(
        None,
        NAME,
        "How a step is taken: euler (the released sampler), heun (finer, with two network calls per step) or dpmpp_2m"
        " (finer, with one).",
        choices=SAMPLERS,
        default_text="the preset's: euler in exact",
    )
    guidance_interval: tuple[float, float] | None = parameter(
        None,
        INTERVAL,
        "The lowest and the highest noise level at which guidance is computed; steps outside take half the time."
        " The released schedules go from 700 down to 0.",
        low=0,
        high=1000,
        default_text="all",
    )
    cache_interval: int | None = parameter(
        None,
        WHOLE,
        "Compute the network's deep layers only at every N-th step and reuse their result in between: faster, but"
        " further from the exact clip.",
        low=1,
        high=100,
        default_text="the preset's: 1 (every step) in exact",
    )
    fps_id: int | None = parameter(
        None,
        WHOLE,
        "The frame rate that the motion is made for: with low values more moves between frames, with high ones less."
        " The video plays at this rate too, unless fps is given.",
        low=1,
        high=60,
        default_text=str(DEFAULT_FPS_ID),
    )
    fps: float | None = parameter(
        None, NUMBER, "How many frames per second the video plays at.", low=0.1, high=240, default_text="fps_id"
    )
    motion_bucket_id: int | None = parameter(
        None,
        WHOLE,
        "How much moves: 0 is nearly still, 255 moves the most.",
        low=0,
        high=255,
        default_text=str(DEFAULT_MOTION_BUCKET_ID),
    )
    cond_aug: float | None = parameter(
        None,
        NUMBER,
        "How much noise is added to the input image: more allows freer motion, less preserves the image's details.",
        low=0,
        high=10,
        default_text="0.02; 1e-05 for sv3d",
    )
    seed: int = parameter(
        23,
        SEED,
        "The seed of the random noise: the same seed makes the same clip again, another seed a different clip."
        " random (or -1) draws a new one, which the record keeps.",
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
        "Whether frames are decoded in independent chunks of decoding_t (chunked, as released), or all together,"
        " without seams between chunks (seamless).",
        choices=("chunked", "seamless"),
    )
    elevations_deg: float | tuple[float, ...] = parameter(
        DEFAULT_ELEVATION_DEG,
        ANGLES,
        "How high the camera is, in degrees: one angle for the whole orbit, one per frame, or a few key angles to"
        " interpolate between. 0 looks from the side, 90 from straight above (sv3d_p and sv3d_tiny only).",
        low=-90,
        high=90,
    )
    azimuths_deg: tuple[float, ...] | None = parameter(
        None,
        ANGLES,
        "Where around the object the camera is, in degrees: one angle per frame, or a few key angles"
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
        default_text="from the image's shape, within the version's own size",
    )
    height: int | None = parameter(
        None,
        WHOLE,
        "The video's height in pixels, like the width; if only one is given, the other follows the image's shape.",
        low=8,
        high=MAX_OUTPUT_SIDE,
        default_text="as for the width",
    )

    def __post_init__(self) -> None:
        read_fields(self)
        if isinstance(self.azimuths_deg, float):
            object.__setattr__(self, "azimuths_deg", (self.azimuths_deg,))

    def resolved_for(self, config: ModelConfig) -> SamplingSettings:
        """The settings for a version, with everything decided that was left open.

        Raises UserError for more angles than frames, for sizes that the version can't make, and for prompts that it
        can't follow.
        """
        preset = PRESETS[self.preset]
        num_frames = self.num_frames or config.num_frames
        motion = resolve_motion(config, self.prompt, self.motion_bucket_id, self.fps_id, self.fps)
        return SamplingSettings(
            prompt=self.prompt,
            num_frames=num_frames,
            num_steps=self.num_steps or preset.num_steps(config.num_steps),
            preset=self.preset,
            schedule=self.schedule or preset.schedule,
            sampler=self.sampler or preset.sampler,
            guidance_interval=self.guidance_interval or ALL_NOISE_LEVELS,
            cache_interval=self.cache_interval or preset.cache_interval,
            fps_id=motion.fps_id,
            fps=motion.fps,
            motion_bucket_id=motion.motion_bucket_id,
            cond_aug=config.cond_aug if self.cond_aug is None else self.cond_aug,
            seed=self.seed,
            decoding_t=self.decoding_t,
            decode=self.decode,
            orbit=self._orbit_of(num_frames) if config.takes_angles else None,
            framing=self._framing_for(config),
            finishing=self.finishing_for(config),
        )

    def _orbit_of(self, num_frames: int) -> Orbit:
        orbit = make_orbit(num_frames, self.elevations_deg, self.azimuths_deg)
        directions = {round(azimuth % 360, 6) % 360 for azimuth in orbit.azimuths_deg}  # 360.1 % 360 is not quite 0.1
        stands_still = len(directions) == len({*orbit.elevations_deg}) == 1
        if self.azimuths_deg is not None and num_frames > 1 and stands_still:
            raise UserError(
                f"azimuths_deg {list(self.azimuths_deg)} leaves the camera where it is: give angles that differ, such"
                " as [90,180,270,360], or omit it for one even turn"
            )
        return orbit

    def _framing_for(self, config: ModelConfig) -> Framing:
        width, height = self.width, self.height
        trained_size = (config.width, config.height)
        fit_size(trained_size, trained_size, config.size_multiple, width or config.width, height or config.height)
        if config.input == "object":
            if width and height and width != height:
                raise UserError(
                    f"{config.version} makes square videos, not {width}x{height}: give width or height alone"
                )
            width = height = width or height or config.width
        return Framing(width, height, self.image_frame_ratio)


@dataclass(frozen=True)
class Framing:
    """How an image is fitted to the frame: a side of None follows the image's shape, a ratio of None keeps its scale.

    width, height: of the frame in pixels. image_frame_ratio: share of the frame that an object fills.
    """

    width: int | None = None
    height: int | None = None
    image_frame_ratio: float | None = None


@dataclass(frozen=True)
class SamplingSettings:
    """How one clip is made, with everything decided; `SamplingParameters` explains the fields.

    prompt: as given, also where it stands for motion_bucket_id and fps_id. guidance_interval: the lowest and the
    highest noise level with guidance. fps: frames per second of the
    video before it is smoothed. orbit: the camera of each frame; None if the version takes no angles.
    """

    prompt: str | None
    num_frames: int
    num_steps: int
    preset: str
    schedule: str
    sampler: str
    guidance_interval: tuple[float, float]
    cache_interval: int
    fps_id: int
    fps: float
    motion_bucket_id: int
    cond_aug: float
    seed: int
    decoding_t: int
    decode: str
    orbit: Orbit | None
    framing: Framing
    finishing: Finishing

    def as_parameters(self, size: tuple[int, int] | None = None) -> dict[str, Any]:
        """The settings as fields of `SamplingParameters` that resolve to them again, for JSON.

        size: (width, height) of the frame, if the image has decided it.
        """
        values = asdict(self)
        orbit, framing, finishing = (values.pop(name) for name in ("orbit", "framing", "finishing"))
        if size is not None:
            framing["width"], framing["height"] = size
        return values | framing | finishing | (orbit or {})


def ignored_parameters(config: ModelConfig) -> dict[str, str]:
    """The names of the sampling parameters that a version ignores, each with the reason."""
    used = {scalar.name for scalar in config.scalars}
    ignored = {}
    if "fps_id" not in used:
        ignored["fps_id"] = "its motion is an orbit, so fps_id sets only how fast the video plays"
    if "motion_bucket_id" not in used:
        ignored["motion_bucket_id"] = "its motion is an orbit"
    if not config.takes_angles:
        reason = "only sv3d_p and sv3d_tiny take camera angles"
        ignored |= {"elevations_deg": reason, "azimuths_deg": reason}
    if config.decoder == "image":
        ignored["decode"] = "it decodes each frame by itself, so there are no seams"
    if config.input != "object":
        ignored["image_frame_ratio"] = "only the sv3d versions cut out and frame an object"
    return ignored
