"""From pictures as the model sees them to the frames of their clips: noise, conditions, sampling, decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import is_out_of_memory
from ..inputs.orbit import Orbit, make_orbit
from ..models.conditioner import Conditioning
from ..models.video_model import VideoModel
from ..parameters.sampling import SamplingParameters
from ..progress import Progress
from ..runtime.devices import give_back_memory
from ..runtime.offloading import Placement
from ..stages import Stages
from .decoding import decode
from .denoiser import Solver, sample_latents


@dataclass(frozen=True)
class FrameGenerator:
    """A model at its place, which turns pictures into frames and shows how far it is."""

    model: VideoModel
    placement: Placement
    progress: Progress

    @property
    def device(self) -> torch.device:
        """What the clips are computed on."""
        return self.placement.device

    @property
    def config(self) -> ModelConfig:
        """The configuration of the version that was loaded."""
        return self.model.config

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
        # 5. End an orbit at the view that it was given.
        if self.config.ends_at_input:
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
        kind = (len(noise) // conditioning.num_clips, *noise.shape[2:])
        while True:
            try:
                self.placement.use_for(kind)
                with self.placement.at_work(unet):
                    in_turn = self.placement.mode.guidance_in_turn
                    return sample_latents(unet, conditioning, noise, guidance, solver, in_turn=in_turn, track=track)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self.placement.can_lower or conditioning.num_clips > 1:
                    raise
            # Out here, where the error is gone, the memory of the failed try is free.
            give_back_memory(self.device)
            self.placement.lower()
            self.progress.say(
                f"warning: memory did not suffice for sampling; once more with --memory {self.placement.name}"
            )

    def _decode(self, latents: Tensor, parameters: SamplingParameters) -> Tensor:
        """Frames (t, 3, H, W), about [-1, 1], on the CPU."""
        give_back_memory(self.device)  # the sampler's blocks are of other sizes than the decoder's
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


def solver_of(parameters: SamplingParameters) -> Solver:
    """How the way from noise to latents is gone."""
    return Solver(**{field.name: getattr(parameters, field.name) for field in fields(Solver)})


def orbit_for(config: ModelConfig, parameters: SamplingParameters) -> Orbit | None:
    """The camera's orbit, for a version that takes angles."""
    if not config.takes_angles:
        return None
    assert parameters.num_frames is not None
    return make_orbit(parameters.num_frames, parameters.elevations_deg, parameters.azimuths_deg)
