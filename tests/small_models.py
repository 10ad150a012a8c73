"""The goldens, and models of the released structure that are small enough to compute them in a test."""

import dataclasses
import json
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from sgm.config import CLIPConfig, ModelConfig, load_config
from sgm.models.video_model import VideoModel, empty_model
from tests.deterministic_weights import weights_for

DATA = Path(__file__).parent / "reference"
GOLDEN_NAMES = ("svd", "svd_xt", "svd_image_decoder", "sv3d_u", "sv3d_p")
VIT_B_32 = CLIPConfig(image_size=224, patch_size=32, width=768, layers=12, heads=12, embed_dim=512)


@dataclasses.dataclass(frozen=True)
class Golden:
    """What the original computed with a small model: the run's parameters and every tensor on the way."""

    config: ModelConfig
    seed: int
    decoding_t: int
    tensors: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


def read_golden(version: str) -> Golden:
    with safe_open(DATA / "goldens" / f"{version}_small.safetensors", framework="pt") as file:
        facts = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = load_config(version)
    assert facts["clip_arch"] == "ViT-B-32"
    shrink = config.scalars[0].width // int(facts["scalar_embedding_dim"])
    small = dataclasses.replace(
        config,
        num_frames=int(facts["num_frames"]),
        num_steps=int(facts["num_steps"]),
        width=int(facts["width"]),
        height=int(facts["height"]),
        scalars=tuple(dataclasses.replace(scalar, width=scalar.width // shrink) for scalar in config.scalars),
        unet=dataclasses.replace(
            config.unet,
            model_channels=int(facts["model_channels"]),
            head_channels=int(facts["num_head_channels"]),
            context_dim=int(facts["context_dim"]),
        ),
        vae=dataclasses.replace(config.vae, base_channels=int(facts["vae_channels"])),
        clip=VIT_B_32,
    )
    return Golden(small, seed=int(facts["seed"]), decoding_t=int(facts["decoding_t"]), tensors=tensors)


def deterministic_state(config: ModelConfig) -> dict[str, Tensor]:
    """What a checkpoint of this structure would hold: the deterministic weights under the released keys."""
    model = empty_model(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    return {key: weights_for(key, shapes[name]) for name, key in model.checkpoint_keys()}


def deterministic_model(config: ModelConfig) -> VideoModel:
    """A model with the deterministic weights, float32 on the CPU, without the way through a file."""
    model = empty_model(config)
    state = deterministic_state(config)
    model.load_state_dict({name: state[key] for name, key in model.checkpoint_keys()}, assign=True)
    return model


def write_config(config: ModelConfig, path: Path) -> Path:
    """The configuration as a file of its own; JSON is YAML too."""
    values = dataclasses.asdict(config)
    del values["version"]
    path.write_text(json.dumps(values, indent=1))
    return path


def with_small_tower(config: ModelConfig) -> ModelConfig:
    """The same but for its image tower: that of a golden holds three quarters of the weights and takes long to load."""
    tower = CLIPConfig(image_size=32, patch_size=16, width=32, layers=1, heads=2, embed_dim=config.unet.context_dim)
    return dataclasses.replace(config, clip=tower)


def key_list(name: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a released checkpoint."""
    lines = (DATA / "keys" / f"{name}.tsv").read_text().splitlines()
    pairs = (line.split("\t") for line in lines)
    return {key: tuple(int(side) for side in shape.replace(",", " ").replace("x", " ").split()) for key, shape in pairs}


def relative_error(ours: Tensor, golden: Tensor) -> float:
    """||ours - golden|| / ||golden||; the two must have one shape."""
    assert ours.shape == golden.shape, (ours.shape, golden.shape)
    difference = (ours.double() - golden.double()).norm()
    return float(difference / golden.double().norm()) if golden.any() else float(difference)


def miniature_config(version: str) -> ModelConfig:
    """The version's structure with few and narrow layers, for what needs no golden."""
    config = load_config(version)
    return dataclasses.replace(
        config,
        num_frames=3,
        num_steps=2,
        width=32,
        height=32,
        scalars=tuple(dataclasses.replace(scalar, width=32) for scalar in config.scalars),
        unet=dataclasses.replace(
            config.unet,
            model_channels=32,
            channel_mult=(1, 2),
            num_res_blocks=1,
            attention_levels=(0,),
            head_channels=16,
            context_dim=32,
        ),
        vae=dataclasses.replace(config.vae, base_channels=32, channel_mult=(1, 2), num_res_blocks=1),
        clip=CLIPConfig(image_size=32, patch_size=16, width=32, layers=1, heads=2, embed_dim=32),
    )
