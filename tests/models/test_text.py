"""The encoder of prompts, and the attention through which they steer the UNet."""

from dataclasses import replace

import torch

from sgm.config import NO_TEXT, load_config
from sgm.models.text import TextEncoder
from sgm.models.video_model import VideoModel
from sgm.models.words import WORDS, Prompt, read_prompt

CONFIG = load_config("svd_tiny_next")


def encoder() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(CONFIG.text, CONFIG.unet.context_dim)


def test_the_order_of_words_counts_and_a_companion_does_not() -> None:
    prompts = [read_prompt(text) for text in ("camera left figure right", "camera right figure left", "zoom")]
    together = encoder()(prompts)
    assert together.shape == (3, CONFIG.text.tokens, CONFIG.unet.context_dim)
    assert (together[0] - together[1]).abs().max() > 1e-3
    torch.testing.assert_close(together[2:], encoder()([prompts[2]]))


def test_no_words_are_zeros() -> None:
    assert encoder()([Prompt(()), read_prompt("qwertz")]).abs().max() == 0


def test_the_encoder_is_small() -> None:
    assert 2 * sum(parameter.numel() for parameter in encoder().parameters()) <= 2e6  # bytes in float16


def unet_output(context: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(1)
    model = VideoModel(CONFIG)
    torch.manual_seed(2)
    x, vector = torch.randn(2 * 3, 2 * CONFIG.vae.latent_channels, 8, 12), torch.randn(6, CONFIG.vector_width)
    with torch.no_grad():
        result: torch.Tensor = model.unet(x, torch.zeros(6), context, vector, 3)
    return result


def test_zeros_for_a_text_add_nothing_and_words_do() -> None:
    torch.manual_seed(3)
    image, text = torch.randn(2, 1, CONFIG.unet.context_dim), torch.randn(2, 4, CONFIG.unet.context_dim)
    without = unet_output(image)
    torch.testing.assert_close(unet_output(torch.cat([image, torch.zeros_like(text)], dim=1)), without)
    changed = unet_output(torch.cat([image, text * torch.tensor([0.0, 1.0])[:, None, None]], dim=1))
    torch.testing.assert_close(changed[:3], without[:3])
    assert (changed[3:] - without[3:]).abs().max() > 1e-3


def test_a_version_with_prompts_differs_by_the_texts_parameters_alone() -> None:
    with_text, without = (VideoModel(config).state_dict() for config in (CONFIG, replace(CONFIG, text=NO_TEXT)))
    added = with_text.keys() - without.keys()
    assert without.keys() <= with_text.keys()
    assert added
    assert all(name.startswith("conditioner.text.") or ".attn_text." in name for name in added)


def test_words_beyond_an_encoders_room_are_unknown_to_it() -> None:
    """New words go to the end of the list, where an encoder that was trained before has no numbers for them."""
    text = f"{WORDS[0]} {WORDS[9]} {WORDS[10]}"
    assert read_prompt(text, 10) == Prompt((1, 10), (WORDS[10],))
    small = TextEncoder(replace(CONFIG.text, words=10), CONFIG.unet.context_dim)
    assert small([small.read(text)]).shape[0] == 1
