"""From an image to a clip: load a version once, then call it on as many images as you like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .checkpoint.files import Checkpoint
from .checkpoint.finding import find_checkpoint
from .checkpoint.loading import load_model
from .compilation import compile_blocks
from .config import ModelConfig, load_config
from .decoding import decode
from .denoiser import Solver, sample_latents
from .devices import PRECISIONS, choose_device, choose_precision
from .errors import is_out_of_memory
from .fitting import fit
from .inputs.image import image_to_tensor, upright
from .inputs.orbit import Orbit, make_orbit
from .memory import MEMORY_MODES, choose_memory, clips_with_room
from .models.conditioner import Conditioning
from .models.video_model import VideoModel
from .outputs.clip_files import DEFAULT_QUALITY
from .outputs.provenance import Provenance
from .outputs.record import Stages, build_record, describe_file
from .outputs.video import write_video
from .outputs.watermark import embed_watermark
from .outputs.whole_file import write_whole
from .parameter import parameters_of
from .placement import Placement, weights_device
from .progress import Progress
from .request import Request
from .sampling_parameters import SamplingParameters


@dataclass(frozen=True)
class Clip:
    """A finished clip.

    frames: uint8 (t, H, W, 3) RGB, watermarked where they are large enough for it.
    record: everything needed to make the clip again, ready for JSON (see `sgm.outputs.record`).
    """

    frames: NDArray[np.uint8]
    record: dict[str, Any]

    def save(self, path: Path | str) -> None:
        """Write the clip as an MP4 that plays in a browser, at the record's frames a second.

        A file that is there already is replaced, as a whole or not at all. Raises OSError where it can't be written.
        """
        fps, provenance = self.record["output"]["fps"], Provenance.of(self.record)
        write_whole(Path(path), lambda aside: write_video(aside, self.frames, fps, DEFAULT_QUALITY, provenance))


def load(
    version: str = "svd_xt",
    *,
    checkpoint: Checkpoint | Path | str | None = None,
    download: bool = False,
    config: Path | str | None = None,
    device: str | None = None,
    precision: str | None = None,
    memory: str = "auto",
    compiled: bool = False,
    progress: Progress | None = None,
) -> Pipeline:
    """A version of the model with its weights, ready to be called on images.

    Args:
        version: one of the names in `configs/`, such as "svd_xt", "sv3d_p" or "svd_tiny".
        checkpoint: the weights: a file, a folder of diffusers' layout, a repository `owner/name[@revision]` of
            huggingface.co, or what `find_checkpoint` has found already; by default the version's own.
        download: whether weights that are not there may be fetched from the repository.
        config: a YAML file that describes the model; by default `configs/<version>.yaml` of the project.
        device: "cuda", "cuda:1", "mps" or "cpu"; by default the first of cuda, mps and cpu that there is.
        precision: "fp16", "bf16" or "fp32", of the UNet and the image tower; by default fp16 on cuda, else fp32.
        memory: "high", "low", "lowest" (see `sgm.memory.MEMORY_MODES`), or "auto", the first that there is room for.
        compiled: whether the UNet's blocks are compiled, at their first call for each size.
        progress: draws the bars; by default on stderr, where that is a terminal.

    Raises:
        UserError: an unknown version, a missing or unfit file, a device that is not there, an unknown precision or
            memory mode.
    """
    progress = progress or Progress()
    config_path = Path(config).expanduser().resolve() if config else None
    model_config = load_config(version, config_path)
    found = find_checkpoint(version, checkpoint, download=download)
    torch_device = choose_device(device)
    precision = choose_precision(precision, torch_device)
    memory = choose_memory(memory, model_config, torch_device, PRECISIONS[precision])
    stages = Stages(str(torch_device))
    with stages.measure("loading"):
        with progress.stage("hashing", total=1, unit="file"):
            checkpoint_files = found.describe()
        model = load_model(
            model_config,
            found.path,
            device=weights_device(MEMORY_MODES[memory], torch_device),
            dtype=PRECISIONS[precision],
            track=partial(progress.track, "loading", unit="tensor"),
        )
        placement = Placement(model, torch_device, memory)
        if compiled:
            compile_blocks(model.unet)
    return Pipeline(
        model, placement, precision, progress, checkpoint_files, config_path=config_path, loading=stages.measured
    )


@dataclass(frozen=True)
class Shot:
    """What one clip is made from, fitted and resolved.

    picture: as the model sees it. parameters: with its width and height. fps: frames a second that the video plays at.
    image_file, image_size: of the image as given, for the record. stages: what fitting took.
    """

    picture: Image.Image
    parameters: SamplingParameters
    fps: float
    image_file: Mapping[str, str | None]
    image_size: tuple[int, int]
    stages: Mapping[str, Mapping[str, Any]]

    @property
    def kind(self) -> tuple[object, ...]:
        """What shots must have in common to be made together."""
        return self.picture.size, self.parameters.num_frames, solver_of(self.parameters)


@dataclass(frozen=True)
class Pipeline:
    """A loaded model that makes clips.

    The files (see `Checkpoint.describe`), and what loading took (see `Stages`), are for the clips' records; without a
    config_path the configuration is the version's own.
    """

    model: VideoModel
    placement: Placement
    precision: str
    progress: Progress
    checkpoint_files: Mapping[str, Any]
    config_path: Path | None = None
    loading: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """What the clips are computed on."""
        return self.placement.device

    @property
    def config(self) -> ModelConfig:
        """The configuration of the version that was loaded."""
        return self.model.config

    def clips_with_room(self) -> int:
        """About how many clips of the version's own size the device has room to make together."""
        return clips_with_room(self.placement.mode, self.config, self.device, PRECISIONS[self.precision])

    def __call__(
        self,
        image: Image.Image,
        *,
        picture: Image.Image | None = None,
        input_path: Path | str | None = None,
        fps: float | None = None,
        **sampling: Any,
    ) -> Clip:
        """The clip that starts from (svd) or circles around (sv3d) what the image shows.

        Args:
            image: of any size and mode; what is transparent counts as white. A camera's note on which side is up holds.
            picture: what `sgm.fitting.fit` has made of the image already, where it has.
            input_path: the file that the image was read from, for the record.
            fps: frames a second that the video plays at; by default fps_id.
            sampling: the fields of `SamplingParameters`, named as on the command line; None is the version's default.

        Raises:
            UserError: a parameter out of its range, or an image without an object to circle around.
        """
        return self.make_together([self.prepare(image, picture=picture, input_path=input_path, fps=fps, **sampling)])[0]

    def prepare(
        self,
        image: Image.Image,
        *,
        picture: Image.Image | None = None,
        input_path: Path | str | None = None,
        fps: float | None = None,
        **sampling: Any,
    ) -> Shot:
        """What a clip is made from; the arguments and errors are those of a call."""
        parameters = SamplingParameters(**sampling).resolved_for(self.config)
        fps = parameters_of(Request)["fps"].read("fps", fps) or float(parameters.fps_id)
        stages = Stages(str(self.device))
        with stages.measure("fitting"):
            image_file = describe_file(Path(input_path) if input_path else None)
            image = upright(image)
            picture = picture or fit(image, self.config, parameters)
        parameters = replace(parameters, width=picture.width, height=picture.height)
        return Shot(picture, parameters, fps, image_file, image.size, stages.measured)

    def make_together(self, shots: Sequence[Shot]) -> list[Clip]:
        """The clips of shots of one kind, which go through the UNet at once. Each is the one made alone, to rounding.

        For a single shot less memory is tried where it does not suffice; for several, that error is raised.
        """
        stages = Stages(str(self.device))
        # 1. Generate the clips.
        images, parameters = [image_to_tensor(shot.picture) for shot in shots], [shot.parameters for shot in shots]
        clips = self.generate_together(images, parameters, stages)
        # 2. Mark their frames as generated.
        with stages.measure("watermarking"):
            pixels = [(frames * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy() for frames in clips]
            marked = [embed_watermark(frames) for frames in pixels]
        # 3. Record how each was made.
        return [
            Clip(frames, self._record(shot, frames.shape, {**shot.stages, **stages.measured}, len(shots)))
            for shot, frames in zip(shots, marked, strict=True)
        ]

    def _record(
        self, shot: Shot, frames_shape: tuple[int, ...], stages: Mapping[str, Any], clips_at_once: int
    ) -> dict[str, Any]:
        orbit = orbit_for(self.config, shot.parameters)
        return build_record(
            parameters={"version": self.config.version, "config": self.config_path, **vars(shot.parameters)},
            image_file=shot.image_file,
            image_size=shot.image_size,
            checkpoint_files=self.checkpoint_files,
            model=asdict(self.config),
            frames_shape=frames_shape,
            fps=shot.fps,
            device=str(self.device),
            device_name=torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None,
            precision=self.precision,
            memory=self.placement.name,
            clips_at_once=clips_at_once,
            stages={**self.loading, **stages},
            elevations_deg=orbit.elevations_deg if orbit else None,
            azimuths_deg=orbit.azimuths_deg if orbit else None,
        )

    def generate(self, image: Tensor, parameters: SamplingParameters, stages: Stages) -> Tensor:
        """The clip before its watermark, float32 (t, 3, H, W) in [0, 1] on the CPU.

        It depends on nothing but the image, the parameters and the kind of device: not on the clips made before it.

        Args:
            image: (1, 3, H, W) in [-1, 1], H and W divisible by `config.size_multiple`.
            parameters: resolved for this version; their width and height are not looked at.
            stages: told the seconds and the memory that the steps take.
        """
        return self.generate_together([image], [parameters], stages)[0]

    @torch.inference_mode()
    def generate_together(
        self, images: Sequence[Tensor], parameters: Sequence[SamplingParameters], stages: Stages
    ) -> list[Tensor]:
        """The same for several images of one size, whose clips have one number of frames and one solver."""
        images = [image.to(self.device) for image in images]
        # 1. Draw all of each clip's noise, in the released sampler's order.
        noises = [self._draw_noise(image, of_clip) for image, of_clip in zip(images, parameters, strict=True)]
        # 2. Say what the clips shall show and how they shall move.
        with stages.measure("conditioning"):
            conditions = [
                self._condition(image, image_noise, of_clip)
                for image, (image_noise, _), of_clip in zip(images, noises, parameters, strict=True)
            ]
        # 3. Turn noise into the clips' latents, step by step.
        with stages.measure("sampling"):
            start_noise = torch.cat([start for _, start in noises])
            latents = self._sample(Conditioning.join(conditions), start_noise, parameters[0])
        # 4. Turn latents into frames.
        with stages.measure("decoding"):
            parts = latents.chunk(len(images))
            clips = [self._decode(part, of_clip) for part, of_clip in zip(parts, parameters, strict=True)]
        # 5. An orbit ends at the view that it was given.
        if self.config.family == "sv3d":
            for frames, image in zip(clips, images, strict=True):
                frames[-1] = image[0]
        return [((frames + 1) / 2).clamp(0, 1) for frames in clips]

    def _draw_noise(self, image: Tensor, parameters: SamplingParameters) -> tuple[Tensor, Tensor]:
        """Noise for the image, of its shape, and to start from, (t, latent_channels, h, w)."""
        assert parameters.num_frames is not None
        generator = torch.Generator(self.device).manual_seed(parameters.seed)
        height, width = (side // self.config.latent_factor for side in image.shape[2:])
        latents_shape = (parameters.num_frames, self.config.vae.latent_channels, height, width)
        image_noise = torch.randn(image.shape, generator=generator, device=self.device)
        return image_noise, torch.randn(latents_shape, generator=generator, device=self.device)

    def _condition(self, image: Tensor, noise: Tensor, parameters: SamplingParameters) -> Conditioning:
        assert parameters.num_frames is not None
        assert parameters.cond_aug is not None
        values: dict[str, Tensor | float] = {
            "fps_id": parameters.fps_id,
            "motion_bucket_id": parameters.motion_bucket_id,
        }
        if orbit := orbit_for(self.config, parameters):
            values["polar_rad"] = torch.tensor(orbit.polars_rad)
            values["azimuth_rad"] = torch.tensor(orbit.azimuths_rad)
        with self.placement.at_work(self.model.conditioner):
            return self.model.conditioner(image, noise, parameters.cond_aug, values, parameters.num_frames)

    def _sample(self, conditioning: Conditioning, noise: Tensor, parameters: SamplingParameters) -> Tensor:
        """The clips' latents; where memory does not suffice for one, all over again in the next lower memory mode."""
        solver = solver_of(parameters)
        track = partial(self.progress.track, "sampling")
        unet, guidance = self.model.unet, self.config.guidance
        while True:
            try:
                with self.placement.at_work(unet):
                    in_turn = self.placement.mode.guidance_in_turn
                    return sample_latents(unet, conditioning, noise, guidance, solver, in_turn=in_turn, track=track)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self.placement.can_lower or conditioning.num_clips > 1:
                    raise
            # Out here, where the error is gone, the memory of the failed try is free.
            self._empty_cache()
            self.placement.lower()
            self.progress.say(
                f"warning: memory did not suffice for sampling; once more with --memory {self.placement.name}"
            )

    def _decode(self, latents: Tensor, parameters: SamplingParameters) -> Tensor:
        """Frames (t, 3, H, W), about [-1, 1], on the CPU."""
        self._empty_cache()  # the sampler's blocks are of other sizes than the decoder's
        decoder, mode = self.model.first_stage, self.placement.mode
        with (
            self.placement.at_work(decoder),
            self.progress.stage("decoding", len(latents), unit="frame") as advance,
        ):
            return decode(
                decoder,
                latents,
                chunk=len(latents) if parameters.decode == "seamless" else parameters.decoding_t,
                at_once=mode.frames_at_once or parameters.decoding_t,
                keep_on_device=mode.frames_at_once is None,
                advance=advance,
                warn=self.progress.say,
            )

    def _empty_cache(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def solver_of(parameters: SamplingParameters) -> Solver:
    """How the way from noise to latents is gone."""
    return Solver(**{field.name: getattr(parameters, field.name) for field in fields(Solver)})


def orbit_for(config: ModelConfig, parameters: SamplingParameters) -> Orbit | None:
    """The camera's orbit, for a version that takes angles."""
    if not config.takes_angles:
        return None
    assert parameters.num_frames is not None
    return make_orbit(parameters.num_frames, parameters.elevations_deg, parameters.azimuths_deg)
