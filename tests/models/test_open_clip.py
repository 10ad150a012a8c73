"""CLIP's image tower against that of open_clip, whose names its weights have; and open_clip's tokenizer, offline."""

from dataclasses import asdict

import pytest
import torch
from torch import nn

from sgm.config import CLIPConfig, load_config
from sgm.models.conditioner import CLIPImageTower, prepare_for_clip
from tests.small_models import relative_error

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # open_clip's own imports give some

# ViT-H-14's shape, an eighth as wide and a quarter as deep.
NARROW = CLIPConfig(image_size=224, patch_size=14, width=160, layers=8, heads=2, embed_dim=128)


def theirs(config: CLIPConfig) -> nn.Module:
    """open_clip's tower of this shape, with random weights."""
    from open_clip.transformer import VisionTransformer

    shape = {name: value for name, value in asdict(config).items() if name != "embed_dim"}
    return VisionTransformer(**shape, mlp_ratio=4.0, output_dim=config.embed_dim).eval()


def check_agreement(config: CLIPConfig) -> None:
    """The same names and shapes, and with the same random weights the same embedding."""
    with torch.device("meta"):
        ours = CLIPImageTower(config).eval()
    tower = theirs(config)
    ours.load_state_dict(tower.state_dict(), strict=True, assign=True)
    image = torch.rand(2, 3, 300, 400, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected = tower(prepare_for_clip(image, config.image_size))
        embedding = ours(image)
    assert embedding.shape == (2, config.embed_dim)
    assert relative_error(embedding, expected) < 1e-5
    assert relative_error(embedding[:1], embedding[1:]) > 1e-2, "the pictures must matter"


def test_a_narrow_tower_agrees() -> None:
    check_agreement(NARROW)


def test_the_released_tower_has_their_names_and_shapes() -> None:
    import open_clip

    vision = open_clip.get_model_config("ViT-H-14")["vision_cfg"]
    config = load_config("svd").clip
    assert (config.image_size, config.patch_size, config.width, config.layers) == (
        vision["image_size"], vision["patch_size"], vision["width"], vision["layers"],
    )  # fmt: skip
    assert config.width // config.heads == vision["head_width"]
    with torch.device("meta"):
        ours, tower = CLIPImageTower(config), theirs(config)
    shapes = {name: tensor.shape for name, tensor in tower.state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == shapes


@pytest.mark.slow
def test_the_released_tower_agrees() -> None:
    """Random weights of full size: 2.5 GB."""
    check_agreement(load_config("svd").clip)


def test_the_tokenizer_works_without_a_network() -> None:
    import open_clip

    tokens = open_clip.tokenize(["a photo of a cat", ""])
    assert tokens.shape == (2, 77)
    assert tokens[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0]
    assert tokens[1, :3].tolist() == [49406, 49407, 0]
