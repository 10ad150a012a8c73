"""Training of the UNet, alone or with CLIP's image tower, with the denoising loss, on latents of clips."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from einops import repeat
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoint.text_adapter import adapter_layout
from ..data.captions import caption
from ..data.clips import TrainingClip, orbit_excerpt, scene_excerpt, to_tensor, training_clip, whole_clip
from ..diffusion.edm import denoise
from ..generation.denoiser import Solver, conditioned_network, sample_latents
from ..models.conditioner import Conditioning, embed_scalars
from ..models.layers import SpatioTemporalTransformer, TimestepResBlock
from ..models.unet import VideoUNet
from ..models.video_model import VideoModel, is_used_when_sampling
from ..models.words import Prompt
from .config import TrainingConfig
from .encoder import as_one_convolution
from .initialization import zero

CONDITION_DROPOUT = 0.1
TEXT_DROPOUT = 0.1  # of the text alone
NO_WORDS = Prompt(())
MAX_KEPT = 2000  # clips whose latents are kept
# Log-normal augmentation noise on the input image of scenes (arXiv:2311.15127, appendix D).
LOG_COND_AUG_MEAN, LOG_COND_AUG_STD = -3.0, 0.5


class DenoisingObjective:
    """The v-prediction loss in EDM form, with dropped conditions and augmentation noise.

    The autoencoder is frozen, so each clip's latents are computed once and cached, up to `MAX_KEPT` clips.
    """

    def __init__(self, model: VideoModel, config: TrainingConfig, device: torch.device):
        self.model, self.config, self.device = model, config, device
        tower = ("conditioner.clip.",) if config.part == "unet_and_image_tower" else ()
        learning = ("unet.", "conditioner.text.", *tower)
        adapter = adapter_layout(model)
        for name, parameter in model.named_parameters():
            learns = name in adapter if config.part == "text_adapter" else name.startswith(learning)
            parameter.requires_grad_(learns and is_used_when_sampling(name))
        vae = model.conditioner.vae
        self.encode = as_one_convolution(vae, model.config.latent_factor) or vae.encode
        self._kept: dict[int, tuple[TrainingClip, Tensor]] = {}

    def __call__(self, step: int) -> Tensor:
        """The loss of a step, a scalar."""
        config = self.config
        rng = np.random.Generator(np.random.PCG64([config.seed, step]))
        generator = torch.Generator(self.device).manual_seed(config.seed * 2**32 + step)
        draw = {"scenes": scene_excerpt, "prompted_scenes": whole_clip, "orbits": orbit_excerpt}[config.data]
        conditions, latents = [], []
        for number in self._numbers(step):
            clip, clean = self._clip(number)
            excerpt = draw(clip, config.frames_per_clip, rng)
            dropped = bool(rng.uniform() < CONDITION_DROPOUT)
            picture = clip.frames[excerpt.input_frame]
            prompt = self._prompt(clip, rng)
            conditioning = self.conditions(
                picture, excerpt.scalars, config.frames_per_clip, self._cond_aug(rng), generator, prompt
            )
            conditions.append(conditioning.unconditional() if dropped else conditioning)
            latents.append(clean[excerpt.frames])
        clean = torch.cat(latents).to(self.device)
        sigma = self._noise_levels(rng, config.batch_size).to(self.device).repeat_interleave(config.frames_per_clip)
        expanded = sigma[:, None, None, None]
        noisy = clean + expanded * torch.randn(clean.shape, generator=generator, device=self.device)
        # The UNet's larger matrix products take about a quarter less time in bfloat16 on a CPU that knows it; on one
        # that doesn't, eight times as much.
        knows_bfloat16 = self.device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=knows_bfloat16):
            denoised = denoise(conditioned_network(self.model.unet, conditions), noisy, sigma)
        return denoising_loss(denoised, clean, sigma)

    def conditions(
        self,
        picture: NDArray[np.uint8],
        scalars: Mapping[str, float | tuple[float, ...]],
        num_frames: int,
        cond_aug: float,
        generator: torch.Generator,
        prompt: Prompt | None,
    ) -> Conditioning:
        """The conditioning of one clip of `num_frames` frames."""
        image = to_tensor(picture[None]).to(self.device)
        noise = torch.randn(image.shape, generator=generator, device=self.device)
        values: Mapping[str, Tensor | float] = {
            name: torch.tensor(value, device=self.device) for name, value in scalars.items()
        }
        values = {**values, "cond_aug": cond_aug}
        conditioner = self.model.conditioner
        return Conditioning(
            crossattn=conditioner.context(image, prompt),
            concat=repeat(self.encode(image + cond_aug * noise), "1 c h w -> t c h w", t=num_frames),
            vector=embed_scalars(conditioner.scalars, values, num_frames, self.device),
        )

    def _prompt(self, clip: TrainingClip, rng: np.random.Generator) -> Prompt | None:
        """A caption of the clip, or, now and then, no words; None where the version takes none."""
        if self.model.config.text.tokens == 0:
            return None
        assert clip.script is not None, "a version that takes prompts is trained on scenes that have scripts"
        read = self.model.conditioner.text.read
        return NO_WORDS if rng.uniform() < TEXT_DROPOUT else read(caption(rng, clip.script))

    @torch.no_grad()
    def sheet(self) -> Tensor:
        """True clips alternating with samples, one per row: (4, frames, 3, size, size) in [-1, 1].

        No step trains on these clips, though they show the same photographs and kinds of objects.
        """
        rows = []
        config = self.model.config
        for number in range(2):
            clip = self._render(2**31 + number, config.num_frames)
            generator = torch.Generator(self.device).manual_seed(number)
            frames = len(clip.frames)
            picture = clip.frames[clip.input_frame]
            prompt = self._prompt(clip, np.random.Generator(np.random.PCG64(number)))
            conditioning = self.conditions(picture, clip.scalars, frames, config.cond_aug, generator, prompt)
            noise = torch.randn(conditioning.concat.shape, generator=generator, device=self.device)
            latents = sample_latents(self.model.unet, conditioning, noise, config.guidance, Solver(config.num_steps))
            rows += [to_tensor(clip.frames).to(self.device), self.model.first_stage.decode(latents, frames)]
        return torch.stack(rows)

    def _numbers(self, step: int) -> list[int]:
        """The step's clips: each pass visits every clip once, the first in order, later ones shuffled."""
        config = self.config
        passes, positions = np.divmod(np.arange(config.batch_size) + (step - 1) * config.batch_size, config.num_clips)
        orders = {
            int(turn): np.random.Generator(np.random.PCG64([config.seed, int(turn)])).permutation(config.num_clips)
            for turn in set(passes.tolist())
        }
        return [
            int(orders[int(turn)][position]) if turn else int(position)
            for turn, position in zip(passes, positions, strict=True)
        ]

    def _render(self, number: int, num_frames: int) -> TrainingClip:
        config = self.config
        return training_clip(config.data, number, config.size, self.model.config, config.seed, config.speed, num_frames)

    def _clip(self, number: int) -> tuple[TrainingClip, Tensor]:
        if number in self._kept:
            clip, latents = self._kept[number]
            return clip, latents.float()
        clip = self._render(number, self.config.frames_per_clip)
        with torch.no_grad():
            pictures = to_tensor(clip.frames).to(self.device)
            latents = (self.encode(pictures) * self.model.config.vae.scale_factor).to("cpu", torch.float16)
        if len(self._kept) < MAX_KEPT:
            self._kept[number] = clip, latents
        return clip, latents.float()

    def _noise_levels(self, rng: np.random.Generator, count: int) -> Tensor:
        """Log-normal noise levels (count,), one from each of `count` equally likely ranges.

        So each batch has both low and high ones, and its loss varies less from step to step.
        """
        quantiles = torch.from_numpy((rng.permutation(count) + rng.uniform(size=count)) / count)
        return (self.config.log_sigma_mean + self.config.log_sigma_std * torch.special.ndtri(quantiles)).exp().float()

    def _cond_aug(self, rng: np.random.Generator) -> float:
        if self.config.data == "orbits":
            return self.model.config.cond_aug
        return math.exp(rng.normal(LOG_COND_AUG_MEAN, LOG_COND_AUG_STD))


def denoising_loss(denoised: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
    """The mean of lambda(sigma) (denoised - clean)^2, for latents (n, c, h, w) and noise levels (n,).

    EDM's weight lambda = (sigma^2 + 1) / sigma^2 makes it the plain squared error of the network's v (arXiv:2206.00364,
    table 1, for sigma_data = 1), so that all noise levels count equally.
    """
    weight = (sigma**2 + 1) / sigma**2
    return (weight[:, None, None, None] * (denoised - clean) ** 2).mean()


def start_unet(unet: VideoUNet) -> None:
    """Zero the last layer of every residual branch, so that the untrained network passes its input through."""
    for module in unet.modules():
        if isinstance(module, TimestepResBlock):
            zero(module.out_layers[-1])
        elif isinstance(module, SpatioTemporalTransformer):
            zero(module.proj_out)
    zero(unet.out[-1])
