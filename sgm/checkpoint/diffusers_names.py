"""The table between this project's parameter names, which are the released ones, and diffusers'.

Left is a module here, right the same module in diffusers; what follows a module's name is the same on both sides. Small
tables say what is inside a kind of block, `_inside` puts them where a model has such blocks. What numbers each side
gives the blocks is in the functions: the released UNet counts through all of a half's blocks, diffusers counts levels
and blocks within; the released decoder counts its levels from the finest, diffusers in the order in which they run.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import CLIPConfig, UNetConfig, VAEConfig
from ..models.video_model import VideoModel

Table = dict[str, str]


def _inside(ours: str, theirs: str, table: Table) -> Table:
    """The table of a block's inside, for a block of these two names."""
    return {f"{ours}.{left}": f"{theirs}.{right}" for left, right in table.items()}


TIMESTEP_RES_BLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
VIDEO_RES_BLOCK = {
    **{left: f"spatial_res_block.{right}" for left, right in TIMESTEP_RES_BLOCK.items()},
    **_inside("time_stack", "temporal_res_block", TIMESTEP_RES_BLOCK),
    "time_mixer": "time_mixer",
}
TRANSFORMER = {
    "norm": "norm",
    "proj_in": "proj_in",
    "transformer_blocks": "transformer_blocks",
    "time_stack": "temporal_transformer_blocks",
    "time_pos_embed.0": "time_pos_embed.linear_1",
    "time_pos_embed.2": "time_pos_embed.linear_2",
    "time_mixer": "time_mixer",
    "proj_out": "proj_out",
}
UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
IMAGE_RES_BLOCK = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "nin_shortcut": "conv_shortcut",
}
TEMPORAL_RES_BLOCK = {
    **{left: f"spatial_res_block.{right}" for left, right in IMAGE_RES_BLOCK.items()},
    **_inside("time_stack", "temporal_res_block", TIMESTEP_RES_BLOCK),
    "mix_factor": "time_mixer.mix_factor",
}
IMAGE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
HALF_OF_VAE_ENDS = {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}
CLIP_ENDS = {
    "conv1": "vision_model.embeddings.patch_embedding",
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "ln_pre": "vision_model.pre_layrnorm",  # transformers' spelling
    "ln_post": "vision_model.post_layernorm",
    "proj": "visual_projection.weight",
}
CLIP_BLOCK = {
    "ln_1": "layer_norm1",
    "attn.in_proj_weight": "self_attn.{qkv}_proj.weight",  # three keys
    "attn.in_proj_bias": "self_attn.{qkv}_proj.bias",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def diffusers_names(model: VideoModel) -> Table:
    """The key in diffusers' folder, `COMPONENT/KEY`, of every parameter of the model that has a place there."""
    config = model.config
    temporal = config.decoder == "temporal"
    table = {
        **{f"unet.{left}": f"unet/{right}" for left, right in _unet(config.unet).items()},
        **{f"conditioner.vae.encoder.{left}": f"vae/encoder.{right}" for left, right in _encoder(config.vae).items()},
        "conditioner.vae.quant_conv": "vae/quant_conv",
        **{
            f"first_stage.decoder.{left}": f"vae/decoder.{right}"
            for left, right in _decoder(config.vae, temporal).items()
        },
        "first_stage.post_quant_conv": "vae/post_quant_conv",
        **{f"conditioner.clip.{left}": f"image_encoder/{right}" for left, right in _clip(config.clip).items()},
    }
    return {name: key for name in model.state_dict() if (key := _look_up(name, table)) is not None}


def _look_up(name: str, table: Table) -> str | None:
    """The table's longest entry that the name begins with, and the rest of the name; None where there is none."""
    for entry in _beginnings(name):
        if entry in table:
            return table[entry] + name.removeprefix(entry)
    return None


def _beginnings(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _unet(config: UNetConfig) -> Table:
    levels, blocks = len(config.channel_mult), config.num_res_blocks
    table = dict(UNET_ENDS)
    for level in range(levels):
        for block in range(blocks):
            ours, theirs = f"input_blocks.{1 + level * (blocks + 1) + block}", f"down_blocks.{level}"
            table |= _inside(f"{ours}.0", f"{theirs}.resnets.{block}", VIDEO_RES_BLOCK)
            table |= _inside(f"{ours}.1", f"{theirs}.attentions.{block}", TRANSFORMER)
        table[f"input_blocks.{(level + 1) * (blocks + 1)}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
    for position in range(levels):  # in the order in which they run, so from the coarsest level to the finest
        for block in range(blocks + 1):
            ours, theirs = f"output_blocks.{position * (blocks + 1) + block}", f"up_blocks.{position}"
            table |= _inside(f"{ours}.0", f"{theirs}.resnets.{block}", VIDEO_RES_BLOCK)
            table |= _inside(f"{ours}.1", f"{theirs}.attentions.{block}", TRANSFORMER)
        for index in (1, 2):  # after the attention, where the level has one
            last = f"output_blocks.{position * (blocks + 1) + blocks}.{index}"
            table[f"{last}.conv"] = f"up_blocks.{position}.upsamplers.0.conv"
    table |= _inside("middle_block.0", "mid_block.resnets.0", VIDEO_RES_BLOCK)
    table |= _inside("middle_block.1", "mid_block.attentions.0", TRANSFORMER)
    table |= _inside("middle_block.2", "mid_block.resnets.1", VIDEO_RES_BLOCK)
    return table


def _middle(res_block: Table) -> Table:
    return {
        **_inside("mid.block_1", "mid_block.resnets.0", res_block),
        **_inside("mid.attn_1", "mid_block.attentions.0", IMAGE_ATTENTION),
        **_inside("mid.block_2", "mid_block.resnets.1", res_block),
    }


def _encoder(config: VAEConfig) -> Table:
    table = HALF_OF_VAE_ENDS | _middle(IMAGE_RES_BLOCK)
    for level in range(len(config.channel_mult)):
        for block in range(config.num_res_blocks):
            table |= _inside(f"down.{level}.block.{block}", f"down_blocks.{level}.resnets.{block}", IMAGE_RES_BLOCK)
        table[f"down.{level}.downsample"] = f"down_blocks.{level}.downsamplers.0"
    return table


def _decoder(config: VAEConfig, temporal: bool) -> Table:
    res_block = TEMPORAL_RES_BLOCK if temporal else IMAGE_RES_BLOCK
    levels = len(config.channel_mult)
    table = HALF_OF_VAE_ENDS | _middle(res_block) | {"conv_out.time_mix_conv": "time_conv_out"}
    for level in range(levels):
        theirs = f"up_blocks.{levels - 1 - level}"
        for block in range(config.num_res_blocks + 1):
            table |= _inside(f"up.{level}.block.{block}", f"{theirs}.resnets.{block}", res_block)
        table[f"up.{level}.upsample"] = f"{theirs}.upsamplers.0"
    return table


def _clip(config: CLIPConfig) -> Table:
    table = dict(CLIP_ENDS)
    for layer in range(config.layers):
        table |= _inside(f"transformer.resblocks.{layer}", f"vision_model.encoder.layers.{layer}", CLIP_BLOCK)
    return table
