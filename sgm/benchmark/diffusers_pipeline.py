"""diffusers' own pipeline with the weights of one of our models, to be measured side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from ..checkpoint.diffusers_configs import component_configs, has_its_conditions
from ..checkpoint.loading import diffusers_folder
from ..config import ModelConfig
from ..errors import UserError
from ..models.video_model import VideoModel, is_used_when_sampling
from .subject import Subject


def check_diffusers(config: ModelConfig) -> None:
    """Raises UserError where there is no diffusers to measure against, or none for this version."""
    if not has_its_conditions(config):
        raise UserError(f"diffusers has no pipeline for {config.version}: measure it without --against diffusers")
    try:
        import diffusers  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install diffusers transformers") from error


class Rival:
    """diffusers' pipeline with a model's weights, asked for what one of our pipelines is asked for."""

    def __init__(self, model: VideoModel, device: torch.device, dtype: torch.dtype, *, compiled: bool = False):
        self.pipeline = diffusers_pipeline(model, device, dtype)
        if compiled:
            self.pipeline.unet = torch.compile(self.pipeline.unet)

    def clip_of(self, subject: Subject) -> Callable[[], object]:
        """A function that makes the clip that the subject makes."""
        settings, guidance = subject.settings, subject.pipeline.config.guidance
        pixels = ((subject.image[0] + 1) * 127.5).round().to(torch.uint8)
        image = Image.fromarray(rearrange(pixels, "c h w -> h w c").numpy())

        def make() -> object:
            return self.pipeline(
                image,
                height=image.height,
                width=image.width,
                num_frames=settings.num_frames,
                num_inference_steps=settings.num_steps,
                min_guidance_scale=guidance.min_scale,
                max_guidance_scale=guidance.max_scale,
                fps=settings.fps_id + 1,  # it takes one off
                motion_bucket_id=settings.motion_bucket_id,
                noise_aug_strength=settings.cond_aug,
                decode_chunk_size=settings.decoding_t,
                output_type="pt",
            ).frames.cpu()

        return make

    def step_of(self, subject: Subject) -> Callable[[], Tensor]:
        """A function that does what the subject's own step does, with the same numbers."""
        given = subject.step_inputs()
        unet = self.pipeline.unet
        frames = subject.settings.num_frames

        def by_clip(x: Tensor) -> Tensor:
            return rearrange(x, "(b t) c h w -> b t c h w", t=frames).to(unet.dtype)

        def step() -> Tensor:
            with torch.inference_mode():
                made = unet(
                    by_clip(given.x),
                    given.noise[0],
                    given.context.to(unet.dtype),
                    added_time_ids=given.scalars.to(unet.dtype),
                ).sample
                return rearrange(made, "b t c h w -> (b t) c h w")

        return step


def diffusers_pipeline(model: VideoModel, device: torch.device, dtype: torch.dtype) -> Any:
    """A `StableVideoDiffusionPipeline` that shares no memory with the model, on `device`, in one precision.

    What diffusers' classes have no setting for is set afterwards: how many groups the normalisations have, and how many
    blocks the temporal decoder has in its middle.
    """
    import diffusers
    import transformers
    from diffusers.models.unets.unet_3d_blocks import MidBlockTemporalDecoder

    config = model.config
    described = component_configs(config)
    unet = diffusers.UNetSpatioTemporalConditionModel.from_config(described["unet"])
    vae = getattr(diffusers, described["vae"]["_class_name"]).from_config(described["vae"])
    image_encoder = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**described["image_encoder"])
    )
    if config.decoder == "temporal":
        widest = config.vae.base_channels * config.vae.channel_mult[-1]
        vae.decoder.mid_block = MidBlockTemporalDecoder(
            num_layers=2, in_channels=widest, out_channels=widest, attention_head_dim=widest
        )
    for part, groups in ((unet, config.unet.norm_groups), (vae, config.vae.norm_groups)):
        for module in part.modules():
            if isinstance(module, nn.GroupNorm):
                module.num_groups = groups
    components = {"unet": unet, "vae": vae, "image_encoder": image_encoder}
    parameters = model.state_dict()
    states: dict[str, dict[str, torch.Tensor]] = {name: {} for name in components}
    for name, place in diffusers_folder(model).items():
        used = is_used_when_sampling(name)
        for key, tensor in place.take_apart(parameters[name]).items():
            component, _, inner = key.partition("/")
            states[component][inner] = tensor if used else torch.zeros(tensor.shape)
    for name, component in components.items():
        component.load_state_dict(states[name], strict=True)
        component.to(device=device, dtype=dtype).eval()
    pipeline: Any = diffusers.StableVideoDiffusionPipeline(
        **components,
        scheduler=diffusers.EulerDiscreteScheduler.from_config(described["scheduler"]),
        feature_extractor=_FeatureExtractor(
            transformers.CLIPImageProcessor(**described["feature_extractor"]), config.clip.image_size
        ),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class _FeatureExtractor:
    """Brings pictures to the tower's size, where the pipeline takes 224 for granted, then normalises them."""

    def __init__(self, normalise: Callable[..., Any], side: int):
        self.normalise, self.side = normalise, side

    def __call__(self, images: Tensor, **options: Any) -> Any:
        return self.normalise(images=F.interpolate(images, (self.side, self.side)), **options)
