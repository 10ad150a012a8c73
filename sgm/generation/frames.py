"""From pictures as the model sees them to the frames of their clips: noise, conditions, sampling, decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

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
from ..runtime.frame_sharing import FrameGroup
from ..runtime.offloading import Placement
from ..runtime.parallel import Ranks, SharedError
from ..stages import Stages
from .denoiser import Solver, Watch, sample_latents


@dataclass(frozen=True)
class FrameGenerator:
    """A model on its device, which turns pictures into frames and shows its progress.

    group: this process's place among those that share the work, where there are several; each has such a generator.
    """

    model: VideoModel
    placement: Placement
    progress: Progress
    group: FrameGroup | None = None

    @property
    def ranks(self) -> Ranks | None:
        """The processes that share the work, where there are several."""
        return self.group.ranks if self.group else None

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
        if self.group is not None:
            self.group.check(settings[0].num_frames)
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
            latents = self.sample_from(Conditioning.join(conditions), start_noise, solver_of(settings[0]), watch)
        return list(latents.chunk(len(images)))

    def decode(self, latents: Tensor, image: Tensor, settings: SamplingSettings, stages: Stages) -> Iterator[Tensor]:
        """The frames of one clip, chunk after chunk: float32 (n, 3, H, W) in [0, 1] on the CPU, n up to decoding_t.

        Between chunks the decoder's weights are not in use, so that other stages may have the device's memory.
        """
        give_back_memory(self.device)  # the sampler's memory blocks have other sizes than the decoder's
        decoder = self.chunk_decoder(self.placement.mode.frames_at_once or settings.decoding_t)
        chunks = latents.split(len(latents) if settings.decode == "seamless" else settings.decoding_t)
        together = self.ranks.size if self.ranks else 1
        with self.progress.stage("decoding", len(latents), unit="frame") as advance:
            for start in range(0, len(chunks), together):
                with stages.measure("decoding"), torch.inference_mode():
                    decoded = self.decode_chunks(chunks[start : start + together], decoder)
                    if self.config.ends_at_input and start + together >= len(chunks):
                        decoded[-1][-1] = image[0]
                    decoded = [((frames + 1) / 2).clamp(0, 1) for frames in decoded]
                for frames in decoded:
                    advance(len(frames))
                    yield frames

    def chunk_decoder(self, at_once: int) -> ChunkDecoder:
        """What decodes a clip's chunks on this device, at most so many frames at a time."""
        keep_on_device = self.placement.mode.frames_at_once is None
        return ChunkDecoder(self.model.first_stage, at_once, keep_on_device, self.progress.say)

    def decode_chunks(self, chunks: Sequence[Tensor], decoder: ChunkDecoder) -> list[Tensor]:
        """The frames of each chunk (see `ChunkDecoder`); with ranks each on one of them, and all of them on rank 0."""
        if self.ranks is not None:
            self.ranks.order("decode", [chunk.cpu() for chunk in chunks], decoder.at_once)
        with self.placement.at_work(self.model.first_stage):
            if self.ranks is None:
                return [decoder(chunk) for chunk in chunks]
            return self.ranks.collect(lambda index: decoder(chunks[index].to(self.device)), len(chunks))

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

    def sample_from(
        self, conditioning: Conditioning, noise: Tensor, solver: Solver, watch: Watch | None = None
    ) -> Tensor:
        """The scaled latents of clips, on the device, from their conditions and unit noise (b t, c, h, w).

        If memory runs out for a single clip, it is retried in the next lower memory mode, on all ranks where there are
        several.
        """
        if self.ranks is not None:
            self.ranks.order("sample", conditioning.to("cpu"), noise.cpu(), solver)
        conditioning, noise = conditioning.to(self.device), noise.to(self.device)
        track = partial(self.progress.track, "sampling")
        unet, guidance, ranks = self.model.unet, self.config.guidance, self.ranks
        kind = (len(noise) // conditioning.num_clips, *noise.shape[2:])
        while True:
            try:
                self.placement.use_for(kind)
                with self.placement.at_work(unet):
                    how: dict[str, Any] = {"in_turn": self.placement.mode.guidance_in_turn, "group": self.group}
                    return sample_latents(unet, conditioning, noise, guidance, solver, **how, track=track, watch=watch)
            except (RuntimeError, MemoryError) as error:
                if ranks is not None and not isinstance(error, SharedError):
                    raise  # the others are still at it
                if not is_out_of_memory(error) or not self.placement.can_lower or conditioning.num_clips > 1:
                    raise
            # Outside the handler the error is gone, and with it the failed attempt's hold on its memory.
            give_back_memory(self.device)
            self.placement.lower()
            self.progress.say(f"warning: out of memory while sampling; retrying with --memory {self.placement.name}")


def solver_of(settings: SamplingSettings) -> Solver:
    """The solver that the settings ask for."""
    return Solver(**{field.name: getattr(settings, field.name) for field in fields(Solver)})


@dataclass
class ChunkDecoder:
    """Decodes chunks of a clip, each by itself, as many frames at a time as there has been memory for.

    autoencoder: with its decoder's weights on the latents' device. at_once: how many frames are computed at a time;
    fewer than a chunk are computed layer by layer, with the same result; when memory runs out, their number is halved.
    keep_on_device: whether what is kept between layers stays on the device, until memory runs out there. warn: called
    with a one-line message when memory runs out.
    """

    autoencoder: Autoencoder
    at_once: int
    keep_on_device: bool
    warn: Callable[[str], object]

    def __call__(self, latents: Tensor) -> Tensor:
        """The frames (n, 3, H, W), about [-1, 1], on the CPU, of scaled latents (n, c, h, w)."""
        while True:
            try:
                return self._decode(latents).cpu()
            except (RuntimeError, MemoryError) as error:
                self.at_once = min(self.at_once, len(latents))
                if not is_out_of_memory(error) or (self.at_once == 1 and not self.keep_on_device):
                    raise
            # Outside the handler the error is gone, and with it the failed attempt's hold on its memory.
            tried, self.at_once, self.keep_on_device = self.at_once, max(self.at_once // 2, 1), False
            self.warn(
                f"warning: out of memory decoding {tried} frames at a time; now {self.at_once}, with the same result"
            )
            give_back_memory(latents.device)

    def _decode(self, latents: Tensor) -> Tensor:
        if self.at_once >= len(latents):
            return self.autoencoder.decode(latents, len(latents))
        return decode_streaming(
            self.autoencoder, latents, self.at_once, latents.device if self.keep_on_device else "cpu"
        )
