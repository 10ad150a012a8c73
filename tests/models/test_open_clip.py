"""CLIP's two towers against those of open_clip, whose names their weights have; and open_clip's tokenizer, offline."""

from dataclasses import asdict

import pytest
import torch
from torch import nn

from sgm.config import CLIPConfig, TextConfig, load_config
from sgm.models.conditioner import CLIPImageTower, CLIPTextTower, prepare_for_clip
from sgm.models.words import Prompt, read_clip_prompt
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


def text_model(config: TextConfig) -> nn.Module:
    """open_clip's model of this shape, whose text transformer is a part of it, with random weights."""
    import open_clip

    shape = {"width": config.width, "heads": config.heads, "layers": config.layers}
    text = open_clip.CLIPTextCfg(context_length=config.tokens, vocab_size=config.words, **shape)
    vision = open_clip.CLIPVisionCfg(layers=1, width=64, patch_size=16, image_size=32)
    return open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text).eval()


def test_a_narrow_text_tower_agrees() -> None:
    """Token by token, which is what open_clip's encode_text has before it takes one of them."""
    config = TextConfig(49408, 64, 3, 4, 77, attention_heads=1, head_channels=8, encoder="ViT-H-14")
    theirs = text_model(config)
    with torch.device("meta"):
        ours = CLIPTextTower(config).eval()
    names = ours.state_dict().keys()
    state = theirs.state_dict()
    others = {name for name in state.keys() - names if not name.startswith("visual.")}
    assert others == {"text_projection", "logit_scale"}
    ours.load_state_dict({name: state[name] for name in names}, assign=True)
    prompts = [ours.read("A photo of a cat, slowly."), ours.read("zoom")]
    numbers = torch.zeros(2, 77, dtype=torch.long)
    for row, prompt in zip(numbers, prompts, strict=True):
        row[: len(prompt.numbers)] = torch.tensor(prompt.numbers)
    last: list[torch.Tensor] = []
    theirs.ln_final.register_forward_hook(lambda module, given, result: last.append(result))
    with torch.inference_mode():
        theirs.encode_text(numbers)
        tokens = ours(prompts)
        assert ours([Prompt(()), prompts[1]])[0].abs().max() == 0
    assert relative_error(tokens, last[0]) < 1e-5
    assert relative_error(tokens[:1], tokens[1:]) > 1e-2, "the words must matter"


def test_the_released_text_tower_has_their_shape() -> None:
    """As docs/prompts.md gives it."""
    import open_clip

    assert open_clip.get_model_config("ViT-H-14")["text_cfg"] == {
        "context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24,
    }  # fmt: skip


def test_a_prompt_is_what_their_tokenizer_makes_of_it() -> None:
    import open_clip

    text = "The camera pans left, slowly: un caf\u00e9!"
    expected = open_clip.tokenize([text])[0]
    prompt = read_clip_prompt(text, 77)
    assert prompt.numbers == tuple(expected[expected > 0].tolist())
    assert prompt.surplus == prompt.unknown == ()
    long = read_clip_prompt("left " * 75 + "right up", 77)
    assert long.numbers == tuple(open_clip.tokenize(["left " * 75])[0].tolist())
    assert long.surplus == ("right", "up")


def test_the_tokenizer_works_without_a_network() -> None:
    import open_clip

    tokens = open_clip.tokenize(["a photo of a cat", ""])
    assert tokens.shape == (2, 77)
    assert tokens[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0]
    assert tokens[1, :3].tolist() == [49406, 49407, 0]
