"""One way of making a clip, measured: its stages, the most memory that it takes, and its frames."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from ..diffusion.edm import clips_a_step
from ..generation.pipeline import Pipeline
from ..models.conditioner import embed_scalars
from ..outputs.clip_files import DEFAULT_QUALITY
from ..outputs.provenance import Provenance
from ..outputs.video import write_video
from ..parameters.sampling import SamplingSettings
from ..stages import Stages
from .timing import Timing, measure_in_turn

FPS = 6


class StepInputs(NamedTuple):
    """What one call of the UNet is given, as `VideoUNet.forward` names it; and the scalars (b, n) behind `vector`."""

    x: Tensor
    noise: Tensor
    context: Tensor
    vector: Tensor
    scalars: Tensor


@dataclass
class Subject:
    """A loaded pipeline and what it is asked for; `stages` holds what each clip that it made took."""

    pipeline: Pipeline
    image: Tensor
    settings: SamplingSettings
    stages: list[Stages] = field(default_factory=list)
    frames: NDArray[np.float32] | None = None

    def make_clip(self) -> None:
        """One clip, up to its frames on the CPU, (t, H, W, 3) in [0, 1]."""
        stages = Stages(str(self.pipeline.device))
        frames = self.pipeline.generator.generate(self.image, self.settings, stages)
        self.stages.append(stages)
        self.frames = rearrange(frames, "t c h w -> t h w c").numpy()

    def seconds_of(self, stage: str, warmups: int) -> float:
        """The median over the clips after the warm-up."""
        return statistics.median(stages.measured[stage]["seconds"] for stages in self.stages[warmups:])

    def peak_memory(self) -> dict[str, Any]:
        """The most bytes that any stage of any clip took, for each kind of memory that was counted (see `Stages`)."""
        measured = [stage for stages in self.stages for stage in stages.measured.values()]
        found: dict[str, Any] = {
            str(stage["memory"]): max(stage["peak_memory_bytes"] for stage in measured)
            for stage in measured
            if stage["memory"] is not None
        }
        if self.pipeline.device.type == "cuda":
            found["cuda_reserved"] = torch.cuda.max_memory_reserved(self.pipeline.device)
        return found

    def step_inputs(self) -> StepInputs:
        """Inputs of the clip's shapes, always the same."""
        config, settings, device = self.pipeline.config, self.settings, self.pipeline.device
        generator = torch.Generator().manual_seed(0)
        clips, frames = clips_at_once(self.pipeline), settings.num_frames
        height, width = (side // config.latent_factor for side in self.image.shape[2:])
        known = {"fps_id": settings.fps_id, "motion_bucket_id": settings.motion_bucket_id}
        values: dict[str, float | Tensor] = {scalar.name: float(known.get(scalar.name, 0)) for scalar in config.scalars}
        channels = 2 * config.vae.latent_channels
        return StepInputs(
            x=torch.randn(clips * frames, channels, height, width, generator=generator).to(device),
            noise=torch.zeros(clips * frames, device=device),
            context=torch.randn(clips, 1, config.unet.context_dim, generator=generator).to(device),
            vector=embed_scalars(config.scalars, values, clips * frames, device),
            scalars=torch.tensor([[float(value) for value in values.values()]] * clips, device=device),
        )

    def unet_step(self) -> Callable[[], Tensor]:
        """One call of the UNet, (b t, c, h, w)."""
        given, unet, frames = self.step_inputs(), self.pipeline.generator.model.unet, self.settings.num_frames

        def step() -> Tensor:
            with torch.inference_mode():
                return unet(given.x, given.noise, given.context, given.vector, frames)

        return step

    def single_stages(self, warmups: int, repeats: int) -> dict[str, Timing]:
        """What a clip's record doesn't separate: image tower, encoder, one step of the UNet, writing the video."""
        conditioner, placement = self.pipeline.generator.model.conditioner, self.pipeline.generator.placement
        image = self.image.to(self.pipeline.device)
        frames = np.zeros((self.settings.num_frames, *self.image.shape[2:], 3), np.uint8)
        provenance = Provenance("sgm", self.pipeline.config.version)

        def write() -> None:
            with tempfile.TemporaryDirectory() as folder:
                write_video(Path(folder, "clip.mp4"), frames, FPS, DEFAULT_QUALITY, provenance)

        works: dict[str, tuple[torch.nn.Module, Callable[[], object]]] = {
            "image tower": (conditioner, lambda: conditioner.clip(image)),
            "encoding": (conditioner, lambda: conditioner.vae.encode(image)),
            "UNet, one step": (self.pipeline.generator.model.unet, self.unet_step()),
            "writing": (torch.nn.Module(), write),
        }
        timings: dict[str, Timing] = {}
        for name, (part, work) in works.items():
            with torch.inference_mode(), placement.at_work(part):
                timings |= measure_in_turn({name: work}, self.pipeline.device, warmups, repeats)
        return timings


def clips_at_once(pipeline: Pipeline) -> int:
    """How many clips one call of the UNet has: guidance's two, unless it has no effect or they go in turn."""
    in_turn = pipeline.generator.placement.mode.guidance_in_turn
    return 1 if in_turn else clips_a_step(pipeline.config.guidance)
