"""From pictures as the model sees them to the frames of their clips: noise, conditions, sampling, decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import is_out_of_memory
from ..models.conditioner import Conditioning
from ..models.streaming import decode_streaming
from ..models.vae import Autoencoder
from ..models.video_model import VideoModel
from ..parameters.sampling import SamplingSettings
from ..progress import Progress
from ..runtime.devices import give_back_memory
from ..runtime.offloading import Placement
from ..stages import Stages
from .denoiser import Solver, Watch, sample_latents


@dataclass(frozen=True)
class FrameGenerator:
    """A model on its device, which turns pictures into frames and shows its progress."""

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

    def generate(self, image: Tensor, settings: SamplingSettings, stages: Stages) -> Tensor:
        """A whole clip before its watermark, float32 (t, 3, H, W) in [0, 1] on the CPU.

        It depends only on the image, the settings and the kind of device, not on the clips made before it.

        Args:
            image: (1, 3, H, W) in [-1, 1], H and W divisible by `config.size_multiple`.
            settings: for this version; their framing is ignored.
            stages: records the seconds and the memory that each stage takes.
        """
        (latents,) = self.sample([image], [settings], stages)
        return torch.cat(list(self.decode(latents, image, settings, stages)))

    @torch.inference_mode()
    def sample(
        self, images: Sequence[Tensor], settings: Sequence[SamplingSettings], stages: Stages, watch: Watch | None = None
    ) -> list[Tensor]:
        """The scaled latents (t, c, h, w) of clips, on the device, from images as for `generate`.

        All images have the same size, and all clips the same number of frames and solver. `watch` sees every step.
        """
        images = [image.to(self.device) for image in images]
        # 1. Draw all of each clip's noise, in the released sampler's order.
        noises = [self._draw_noise(image, of_clip) for image, of_clip in zip(images, settings, strict=True)]
        # 2. Say what the clips should show and how they should move.
        with stages.measure("conditioning"):
            conditions = [
                self._condition(image, image_noise, of_clip)
                for image, (image_noise, _), of_clip in zip(images, noises, settings, strict=True)
            ]
        # 3. Turn noise into the clips' latents, step by step.
        with stages.measure("sampling"):
            start_noise = torch.cat([start for _, start in noises])
            latents = self._sample(Conditioning.join(conditions), start_noise, solver_of(settings[0]), watch)
        return list(latents.chunk(len(images)))

    def decode(self, latents: Tensor, image: Tensor, settings: SamplingSettings, stages: Stages) -> Iterator[Tensor]:
        """The frames of one clip, chunk after chunk: float32 (n, 3, H, W) in [0, 1] on the CPU, n up to decoding_t.

        Between chunks the decoder's weights are not in use, so that other stages may have the device's memory.
        """
        give_back_memory(self.device)  # the sampler's memory blocks have other sizes than the decoder's
        decoder, mode = self.model.first_stage, self.placement.mode
        with self.progress.stage("decoding", len(latents), unit="frame") as advance:
            chunks = decode(
                decoder,
                latents,
                chunk=len(latents) if settings.decode == "seamless" else settings.decoding_t,
                at_once=mode.frames_at_once or settings.decoding_t,
                keep_on_device=mode.frames_at_once is None,
                advance=advance,
                warn=self.progress.say,
            )
            left = len(latents)
            while left:
                with stages.measure("decoding"), torch.inference_mode(), self.placement.at_work(decoder):
                    frames = next(chunks)
                    left -= len(frames)
                    if not left and self.config.ends_at_input:
                        frames[-1] = image[0]
                    frames = ((frames + 1) / 2).clamp(0, 1)
                yield frames

    def _draw_noise(self, image: Tensor, settings: SamplingSettings) -> tuple[Tensor, Tensor]:
        """Noise for the image, of its shape, and noise to start from, (t, latent_channels, h, w)."""
        generator = torch.Generator(self.device).manual_seed(settings.seed)
        height, width = (side // self.config.latent_factor for side in image.shape[2:])
        latents_shape = (settings.num_frames, self.config.vae.latent_channels, height, width)
        image_noise = torch.randn(image.shape, generator=generator, device=self.device)
        return image_noise, torch.randn(latents_shape, generator=generator, device=self.device)

    def _condition(self, image: Tensor, noise: Tensor, settings: SamplingSettings) -> Conditioning:
        values: dict[str, Tensor | float] = {
            "fps_id": settings.fps_id,
            "motion_bucket_id": settings.motion_bucket_id,
        }
        if settings.orbit is not None:
            values["polar_rad"] = torch.tensor(settings.orbit.polars_rad)
            values["azimuth_rad"] = torch.tensor(settings.orbit.azimuths_rad)
        conditioner = self.model.conditioner
        text = settings.prompt if self.config.takes_prompts else None  # else it stands for values
        prompt = None if text is None else conditioner.text.read(text)
        with self.placement.at_work(conditioner):
            return conditioner(image, noise, settings.cond_aug, values, settings.num_frames, prompt)

    def _sample(self, conditioning: Conditioning, noise: Tensor, solver: Solver, watch: Watch | None) -> Tensor:
        """The clips' latents; if memory runs out for a single clip, retried in the next lower memory mode."""
        track = partial(self.progress.track, "sampling")
        unet, guidance = self.model.unet, self.config.guidance
        kind = (len(noise) // conditioning.num_clips, *noise.shape[2:])
        while True:
            try:
                self.placement.use_for(kind)
                with self.placement.at_work(unet):
                    in_turn = self.placement.mode.guidance_in_turn
                    return sample_latents(
                        unet, conditioning, noise, guidance, solver, in_turn=in_turn, track=track, watch=watch
                    )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self.placement.can_lower or conditioning.num_clips > 1:
                    raise
            # Outside the handler the error is gone, and with it the failed attempt's hold on its memory.
            give_back_memory(self.device)
            self.placement.lower()
            self.progress.say(f"warning: out of memory while sampling; retrying with --memory {self.placement.name}")


def solver_of(settings: SamplingSettings) -> Solver:
    """The solver that the settings ask for."""
    return Solver(**{field.name: getattr(settings, field.name) for field in fields(Solver)})


def decode(
    autoencoder: Autoencoder,
    latents: Tensor,
    *,
    chunk: int,
    at_once: int,
    keep_on_device: bool,
    advance: Callable[[int], object],
    warn: Callable[[str], object],
) -> Iterator[Tensor]:
    """The frames of one clip's scaled latents (t, c, h, w), chunk after chunk: (n, 3, H, W), about [-1, 1], on the CPU.

    Args:
        autoencoder: with its decoder's weights on the latents' device.
        latents: the clip.
        chunk: how many frames are decoded with knowledge of each other; chunks are independent.
        at_once: how many of these are computed at a time. Fewer than a chunk are computed layer by layer, with the same
            result; when memory runs out, their number is halved.
        keep_on_device: whether what is kept between layers stays on the device, until memory runs out there.
        advance: called with the number of frames just finished.
        warn: called with a one-line message when memory runs out.
    """
    for part in latents.split(chunk):
        while True:
            try:
                frames = _decode_chunk(autoencoder, part, at_once, keep_on_device).cpu()
                break
            except (RuntimeError, MemoryError) as error:
                at_once = min(at_once, len(part))
                if not is_out_of_memory(error) or (at_once == 1 and not keep_on_device):
                    raise
            # Outside the handler the error is gone, and with it the failed attempt's hold on its memory.
            tried, at_once, keep_on_device = at_once, max(at_once // 2, 1), False
            warn(f"warning: out of memory decoding {tried} frames at a time; now {at_once}, with the same result")
            give_back_memory(latents.device)
        advance(len(part))
        yield frames


def _decode_chunk(autoencoder: Autoencoder, latents: Tensor, at_once: int, keep_on_device: bool) -> Tensor:
    if at_once >= len(latents):
        return autoencoder.decode(latents, len(latents))
    return decode_streaming(autoencoder, latents, at_once, latents.device if keep_on_device else "cpu")
