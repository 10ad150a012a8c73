"""The JSON files of diffusers' folder: which classes its parts are of, and how those are built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..config import ModelConfig
from ..diffusion.edm import SIGMA_MAX, SIGMA_MIN
from ..models.conditioner import MEAN, STD

# What diffusers' video classes have no setting for: into how many groups they divide channels to normalise them; and
# the temporal decoder has as many blocks in its middle as in a level of the encoder, where here there are always two.
NORM_GROUPS = 32
RES_BLOCKS_IN_MIDDLE = 2


def write_configs(folder: Path, config: ModelConfig) -> None:
    """Write the configuration of each part of the folder, and of the whole where diffusers has a pipeline for it."""
    components = component_configs(config)
    files = {f"{name}/config.json": components[name] for name in ("unet", "vae", "image_encoder")}
    if has_pipeline(config):
        files |= {
            "model_index.json": _PIPELINE | {"vae": ["diffusers", components["vae"]["_class_name"]]},
            "scheduler/scheduler_config.json": components["scheduler"],
            "feature_extractor/preprocessor_config.json": components["feature_extractor"],
        }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def component_configs(config: ModelConfig) -> dict[str, dict[str, Any]]:
    """The configuration of each part of diffusers' pipeline, by the part's name there."""
    return {
        "unet": _unet(config),
        "vae": _vae(config),
        "image_encoder": _image_encoder(config),
        "scheduler": _SCHEDULER,
        "feature_extractor": _feature_extractor(config),
    }


def has_its_conditions(config: ModelConfig) -> bool:
    """Whether the model is conditioned as diffusers' pipeline does it, which knows no camera angles, and no orbits."""
    return [scalar.name for scalar in config.scalars] == ["fps_id", "motion_bucket_id", "cond_aug"]


def has_pipeline(config: ModelConfig) -> bool:
    """Whether diffusers can run this model: its video classes have one kind of conditions and fewer settings."""
    return (
        has_its_conditions(config)
        and config.unet.norm_groups == config.vae.norm_groups == NORM_GROUPS
        and (config.decoder == "image" or config.vae.num_res_blocks == RES_BLOCKS_IN_MIDDLE)
    )


def _unet(config: ModelConfig) -> dict[str, Any]:
    unet, latents = config.unet, config.vae.latent_channels
    widths = [unet.model_channels * mult for mult in unet.channel_mult]
    attends = [level in unet.attention_levels for level in range(len(widths))]
    return {
        "_class_name": "UNetSpatioTemporalConditionModel",
        "in_channels": 2 * latents,
        "out_channels": latents,
        "down_block_types": [f"{'CrossAttn' * here}DownBlockSpatioTemporal" for here in attends],
        "up_block_types": [f"{'CrossAttn' * here}UpBlockSpatioTemporal" for here in attends[::-1]],
        "block_out_channels": widths,
        "layers_per_block": unet.num_res_blocks,
        "num_attention_heads": [width // unet.head_channels for width in widths],
        "cross_attention_dim": unet.context_dim,
        "addition_time_embed_dim": config.scalars[0].width,
        "projection_class_embeddings_input_dim": config.vector_width,
        "num_frames": config.num_frames,
        "sample_size": config.width // config.latent_factor,
    }


def _vae(config: ModelConfig) -> dict[str, Any]:
    vae = config.vae
    levels = len(vae.channel_mult)
    common = {
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "block_out_channels": [vae.base_channels * mult for mult in vae.channel_mult],
        "layers_per_block": vae.num_res_blocks,
        "latent_channels": vae.latent_channels,
        "scaling_factor": vae.scale_factor,
        "sample_size": config.width,
        "force_upcast": True,
    }
    if config.decoder == "temporal":
        return {"_class_name": "AutoencoderKLTemporalDecoder", **common}
    return {
        "_class_name": "AutoencoderKL",
        **common,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "norm_num_groups": vae.norm_groups,
        "use_post_quant_conv": config.checkpoint.first_stage_quant_convs,
    }


def _image_encoder(config: ModelConfig) -> dict[str, Any]:
    clip = config.clip
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_size": clip.width,
        "intermediate_size": 4 * clip.width,
        "num_hidden_layers": clip.layers,
        "num_attention_heads": clip.heads,
        "image_size": clip.image_size,
        "patch_size": clip.patch_size,
        "projection_dim": clip.embed_dim,
        "hidden_act": "gelu",
    }


_PIPELINE = {
    "_class_name": "StableVideoDiffusionPipeline",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
}
# EDM's schedule and scaling as diffusers names them (arXiv:2206.00364), at the noise levels that SVD was trained for.
_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "timestep_spacing": "leading",
    "use_karras_sigmas": True,
    "sigma_min": SIGMA_MIN,
    "sigma_max": SIGMA_MAX,
    "steps_offset": 1,
}


def _feature_extractor(config: ModelConfig) -> dict[str, Any]:
    side = config.clip.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }
