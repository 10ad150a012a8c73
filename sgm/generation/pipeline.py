"""From an image to a clip: load a version once, then call it on as many images as you like."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..checkpoint.files import Checkpoint
from ..checkpoint.finding import add_text, find_checkpoint
from ..checkpoint.interpolators import find_interpolator
from ..checkpoint.text_adapter import check_text_adapter
from ..config import ModelConfig, load_config
from ..enhance.ema_vfi import NetworkInterpolator
from ..errors import UserError
from ..inputs.image import image_to_tensor, read_image, upright
from ..outputs.record import build_record
from ..parameters.devices import check_shares, device_names
from ..parameters.sampling import SamplingParameters, SamplingSettings
from ..parameters.text_adapter import with_text_adapter
from ..progress import Progress
from ..runtime.devices import (
    PRECISIONS,
    check_fp8,
    choose_device,
    choose_precision,
    clips_with_room,
    give_back_memory,
)
from ..stages import Stages
from ..storage.files import describe_file
from ..watermark.embedding import embed_watermark
from .clip import Clip, Pixels
from .denoiser import Watch
from .finishing import Finisher
from .fitting import fit
from .frames import FrameGenerator, solver_of
from .interpolator import place_interpolator
from .loading import Loading, load_generators
from .prompting import remarks_on_prompt


@dataclass(frozen=True)
class Shot:
    """What one clip is made from, fitted and resolved.

    picture: as the model sees it. settings: of the sampling. finisher: of the decoded frames. image_file, image_size:
    of the image as given, for the record. stages: what fitting took.
    """

    picture: Image.Image
    settings: SamplingSettings
    finisher: Finisher
    image_file: Mapping[str, str | None]
    image_size: tuple[int, int]
    stages: Mapping[str, Mapping[str, Any]]

    @property
    def kind(self) -> tuple[object, ...]:
        """What shots must have in common to be made together."""
        has_text = self.settings.prompt is not None
        return self.picture.size, self.settings.num_frames, has_text, solver_of(self.settings)


@dataclass(frozen=True)
class Take:
    """A clip whose latents have been sampled, and whose frames come as they are decoded."""

    pipeline: Pipeline
    shot: Shot
    latents: torch.Tensor
    stages: Stages
    clips_at_once: int

    def frames(self) -> Iterator[Pixels]:
        """The frames, chunk after chunk, uint8 (n, H, W, 3) RGB, watermarked. Each call decodes again."""
        finisher, progress = self.shot.finisher, self.pipeline.generator.progress
        interpolator = self.pipeline.interpolator
        between = None if interpolator is None else interpolator.between
        with progress.stage("finishing", finisher.frames_shape[0], unit="frame") as advance:
            for chunk in finisher.finish(self._decoded(), self.stages, between):
                with self.stages.measure("watermarking"):
                    marked = embed_watermark(chunk)
                advance(len(chunk))
                yield marked

    def _decoded(self) -> Iterator[Pixels]:
        image, settings = image_to_tensor(self.shot.picture), self.shot.settings
        for chunk in self.pipeline.generator.decode(self.latents, image, settings, self.stages):
            yield (chunk * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()

    def record(self) -> dict[str, Any]:
        """How the clip was made; complete only after its frames have come, since it includes what that took."""
        return self.pipeline.record_of(self.shot, {**self.shot.stages, **self.stages.measured}, self.clips_at_once)

    def clip(self) -> Clip:
        """The whole clip in memory."""
        frames = np.concatenate(list(self.frames()))
        return Clip(frames, self.record())


def load(
    version: str = "svd_xt",
    *,
    checkpoint: Checkpoint | Path | str | None = None,
    download: bool = False,
    config: Path | str | None = None,
    text_adapter: Path | str | None = None,
    device: str | None = None,
    precision: str | None = None,
    fp8: str = "off",
    memory: str = "auto",
    compile: bool = False,  # noqa: A002  # as on the command line
    interpolator: Path | str | None = None,
    progress: Progress | None = None,
) -> Pipeline:
    """A version of the model with its weights, ready to be called on images.

    Args:
        version: one of the names in `configs/`, such as "svd_xt", "sv3d_p" or "svd_tiny".
        checkpoint: the weights: a file, a folder in diffusers' layout, a repository `owner/name[@revision]` on
            huggingface.co, or the result of `find_checkpoint`; by default the version's own.
        download: whether missing weights may be downloaded from the repository.
        config: a YAML file that describes the model; by default `configs/<version>.yaml` of the project.
        text_adapter: a .safetensors file with which an svd version reads prompts.
        device: "cuda", "cuda:1", "mps" or "cpu", or several that make each clip together, such as "cuda:0,cuda:1"; by
            default the first available of cuda, mps and cpu.
        precision: "fp16", "bf16" or "fp32", of the UNet and the image tower; by default fp16 on cuda, else fp32.
        fp8: "off", "weights" (the UNet's in 8 bits), or "linears" (most of its matrix products in 8 bits as well).
        memory: "high", "low", "lowest" (see `MEMORY_MODES`), or "auto", the first that fits.
        compile: whether the UNet's blocks are compiled, at the first call for each size.
        interpolator: the file with the weights of interpolator ema_vfi, under the name that it was released by.
        progress: shows how far the work is; by default on stderr.

    Raises:
        UserError: an unknown version, a missing or unsuitable file, an unavailable device, an unknown precision or
            memory mode, or fp8 on a device without it.
    """
    progress = progress or Progress()
    config_path = Path(config).expanduser().resolve() if config else None
    model_config = load_config(version, config_path)
    if adapter := Path(text_adapter).expanduser() if text_adapter else None:
        model_config = with_text_adapter(model_config, adapter)
        check_text_adapter(adapter, model_config)
    found = find_checkpoint(version, checkpoint, download=download)
    if adapter and found.text_adapter is None:
        found = add_text(found, adapter, model_config.text, download=download)
    if interpolator is not None:
        found = replace(found, interpolator=find_interpolator(interpolator))
    names = device_names(device) if device else [None]
    check_shares(device or "", model_config, model_config.num_frames, compile=compile)
    devices = [choose_device(name) for name in names]
    precision = choose_precision(precision, devices[0])
    for each in devices:
        check_fp8(fp8, each)
    stages = Stages(str(devices[0]))
    with stages.measure("loading"):
        with progress.stage("hashing", total=1, unit="file"):
            checkpoint_files = found.describe()
        generator = load_generators(Loading(model_config, found, precision, fp8, memory, compile), devices, progress)
        by_network = None
        if found.interpolator is not None:
            dtype = PRECISIONS[precision]
            by_network = place_interpolator(found.interpolator, generator.placement, dtype, progress)
    return Pipeline(
        generator,
        precision=precision,
        checkpoint_files=checkpoint_files,
        fp8=fp8,
        config_path=config_path,
        loading=stages.measured,
        interpolator=by_network,
    )


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A loaded model that makes clips, from any image to watermarked frames with their record.

    The files (see `Checkpoint.describe`), and what loading took (see `Stages`), are for the clips' records; without a
    config_path the configuration is the version's own, and without an interpolator frames are made by flow alone.
    """

    generator: FrameGenerator = field(kw_only=False)
    precision: str
    checkpoint_files: Mapping[str, Any]
    fp8: str = "off"
    config_path: Path | None = None
    loading: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    interpolator: NetworkInterpolator | None = None

    @property
    def config(self) -> ModelConfig:
        """The configuration of the version that was loaded."""
        return self.generator.config

    @property
    def device(self) -> torch.device:
        """What the clips are computed on."""
        return self.generator.device

    def clips_with_room(self) -> int:
        """About how many clips of the version's own size the device has room to make together."""
        dtype, fp8 = PRECISIONS[self.precision], self.fp8 != "off"
        mode = self.generator.placement.mode
        network = None if self.interpolator is None else self.interpolator.network.config
        return clips_with_room(mode, self.config, self.device, dtype, fp8=fp8, interpolator=network)

    @property
    def is_lost(self) -> bool:
        """Whether a process that helps this one has ended, so that it can make no more clips."""
        return self.generator.ranks is not None and self.generator.ranks.are_lost

    def close(self) -> None:
        """End the processes that help this one, where there are any; the end of the program does, too."""
        if self.generator.ranks is not None:
            self.generator.ranks.close()

    def give_back_memory(self) -> None:
        """Release the memory that a failed attempt has left behind."""
        gc.collect()
        give_back_memory(self.device)

    def __call__(
        self, image: Image.Image | Path | str | Pixels, *, watch: Watch | None = None, **sampling: Any
    ) -> Clip:
        """The clip that starts from (svd) or circles around (sv3d) what the image shows.

        Args:
            image: a PIL image of any size and mode, a file's path, or uint8 pixels (H, W, 3) RGB or (H, W, 4) RGBA.
                Transparent parts count as white. The orientation in its EXIF data is respected.
            watch: called at each step with the noise level and the latents (t, c, h, w) denoised there, for previews;
                what it raises ends the run.
            sampling: the fields of `SamplingParameters`, named as on the command line; None is the version's default.

        Raises:
            UserError: a parameter out of range, something that isn't an image, or an image without an object to circle.
        """
        settings = SamplingParameters(**sampling).resolved_for(self.config)
        for remark in remarks_on_prompt(settings, self.config):
            self.generator.progress.say(remark)
        input_path = Path(image) if isinstance(image, Path | str) else None
        (take,) = self.take([self.prepare(_as_image(image), settings, input_path=input_path)], watch)
        return take.clip()

    def prepare(
        self,
        image: Image.Image,
        settings: SamplingSettings,
        *,
        picture: Image.Image | None = None,
        input_path: Path | None = None,
    ) -> Shot:
        """What a clip is made from.

        Args:
            image: as for a call.
            settings: resolved for this version.
            picture: the result of `fit` for the image, if it is known already.
            input_path: the file that the image was read from, for the record.

        Raises:
            UserError: an image without an object to circle around, or an interpolator that was not loaded.
        """
        if settings.finishing.needs_weights and self.interpolator is None:
            raise UserError("interpolator ema_vfi needs its weights: load the version with interpolator=FILE")
        stages = Stages(str(self.device))
        with stages.measure("fitting"):
            image_file = describe_file(input_path)
            image = upright(image)
            picture = picture or fit(image, self.config, settings.framing)
            finisher = Finisher.of(settings, image, picture.size, repeats=self.config.ends_at_input)
        return Shot(picture, settings, finisher, image_file, image.size, stages.measured)

    def take(self, shots: Sequence[Shot], watch: Watch | None = None) -> list[Take]:
        """The clips of shots of one kind, which go through the UNet at once, ready to be decoded.

        Up to rounding, each is the same as if made alone. If memory runs out, a single shot is retried with less; for
        several, the error is raised.
        """
        stages = Stages(str(self.device))
        images = [image_to_tensor(shot.picture) for shot in shots]
        latents = self.generator.sample(images, [shot.settings for shot in shots], stages, watch)
        return [
            Take(self, shot, of_shot, Stages(str(self.device), stages.measured), len(shots))
            for shot, of_shot in zip(shots, latents, strict=True)
        ]

    def record_of(self, shot: Shot, stages: Mapping[str, Any], clips_at_once: int) -> dict[str, Any]:
        """The record of a shot's clip; `stages` as in `Stages.measured`."""
        settings = shot.settings
        parameters = settings.as_parameters(shot.picture.size)
        used = {**self.checkpoint_files}
        if not settings.finishing.needs_weights:
            used.pop("interpolator", None)
        return build_record(
            parameters={"version": self.config.version, "config": self.config_path, **parameters},
            image_file=shot.image_file,
            image_size=shot.image_size,
            checkpoint_files=used,
            model=asdict(self.config),
            frames_shape=shot.finisher.frames_shape,
            fps=shot.finisher.fps,
            device=str(self.device),
            device_name=torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None,
            precision=self.precision,
            fp8=self.fp8,
            memory=self.generator.placement.name,
            threads=torch.get_num_threads(),
            ranks=self.generator.ranks.size if self.generator.ranks else 1,
            clips_at_once=clips_at_once,
            stages={**self.loading, **stages},
            elevations_deg=settings.orbit.elevations_deg if settings.orbit else None,
            azimuths_deg=settings.orbit.azimuths_deg if settings.orbit else None,
        )


def _as_image(image: Image.Image | Path | str | Pixels) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, Path | str):
        return read_image(Path(image))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] in (3, 4):
        return Image.fromarray(image)
    shape = f" of {image.dtype} {image.shape}" if isinstance(image, np.ndarray) else ""
    raise UserError(
        f"the image can't be a {type(image).__name__}{shape}: give a PIL image, a path, or uint8 pixels (H, W, 3)"
    )
