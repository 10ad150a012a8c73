"""From an image to a clip: load a version once, then call it on as many images as you like."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..checkpoint.files import Checkpoint
from ..checkpoint.finding import find_checkpoint
from ..checkpoint.loading import load_model
from ..config import load_config
from ..inputs.image import image_to_tensor, upright
from ..outputs.clip_files import DEFAULT_QUALITY
from ..outputs.provenance import Provenance
from ..outputs.record import build_record
from ..outputs.video import write_video
from ..parameters.parameter import parameters_of
from ..parameters.request import Request
from ..parameters.sampling import SamplingParameters
from ..progress import Progress
from ..runtime.compilation import compile_blocks
from ..runtime.devices import PRECISIONS, check_fp8, choose_device, choose_precision, give_back_memory
from ..runtime.fp8 import use_fp8
from ..runtime.memory import MEMORY_MODES, choose_memory, clips_with_room
from ..runtime.offloading import Placement, weights_device
from ..stages import Stages
from ..storage.hashing import describe_file
from ..storage.whole_file import write_whole
from ..watermark.embedding import embed_watermark
from .fitting import fit
from .frames import FrameGenerator, orbit_for, solver_of


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
    fp8: str = "off",
    memory: str = "auto",
    compile: bool = False,  # noqa: A002  # as on the command line
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
        fp8: "off", "weights" (the UNet's are kept in 8 bits), or "linears" (most of its products are of 8 bits, too).
        memory: "high", "low", "lowest" (see `MEMORY_MODES`), or "auto", the first that there is room for.
        compile: whether the UNet's blocks are compiled, at their first call for each size.
        progress: draws the bars; by default on stderr, where that is a terminal.

    Raises:
        UserError: an unknown version, a missing or unfit file, a device that is not there, an unknown
            precision or memory mode, or fp8 where the device has none.
    """
    progress = progress or Progress()
    config_path = Path(config).expanduser().resolve() if config else None
    model_config = load_config(version, config_path)
    found = find_checkpoint(version, checkpoint, download=download)
    torch_device = choose_device(device)
    precision = choose_precision(precision, torch_device)
    check_fp8(fp8, torch_device)
    memory = choose_memory(memory, model_config, torch_device, PRECISIONS[precision], fp8=fp8 != "off")
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
        if fp8 != "off":
            use_fp8(model.unet, linears=fp8 == "linears")
        placement = Placement(model, torch_device, memory)
        if compile:
            compile_blocks(model.unet)
    return Pipeline(
        model,
        placement,
        progress,
        precision=precision,
        checkpoint_files=checkpoint_files,
        fp8=fp8,
        config_path=config_path,
        loading=stages.measured,
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


@dataclass(frozen=True, kw_only=True)
class Pipeline(FrameGenerator):
    """A loaded model that makes clips, from any image to a watermarked clip with its record.

    The files (see `Checkpoint.describe`), and what loading took (see `Stages`), are for the clips' records; without a
    config_path the configuration is the version's own.
    """

    precision: str
    checkpoint_files: Mapping[str, Any]
    fp8: str = "off"
    config_path: Path | None = None
    loading: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def clips_with_room(self) -> int:
        """About how many clips of the version's own size the device has room to make together."""
        dtype, fp8 = PRECISIONS[self.precision], self.fp8 != "off"
        return clips_with_room(self.placement.mode, self.config, self.device, dtype, fp8=fp8)

    def give_back_memory(self) -> None:
        """Let go of the memory that a failed try has left behind."""
        gc.collect()
        give_back_memory(self.device)

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
            picture: what `sgm.generation.fitting.fit` has made of the image already, where it has.
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
            fp8=self.fp8,
            memory=self.placement.name,
            clips_at_once=clips_at_once,
            stages={**self.loading, **stages},
            elevations_deg=orbit.elevations_deg if orbit else None,
            azimuths_deg=orbit.azimuths_deg if orbit else None,
        )
