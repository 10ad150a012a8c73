import torch
from torch import nn

from sgm.models.conditioner import MEAN, STD, Block, prepare_for_clip


def test_block_is_the_transformer_layer_of_torch() -> None:
    width, heads = 64, 4
    block = Block(width, heads)
    plain = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0, activation="gelu", batch_first=True, norm_first=True
    )
    names = {
        "ln_1": "norm1",
        "ln_2": "norm2",
        "attn": "self_attn",
        "mlp.c_fc": "linear1",
        "mlp.c_proj": "linear2",
    }

    def plain_name(name: str) -> str:
        prefix = next(prefix for prefix in names if name.startswith(prefix + "."))
        return names[prefix] + name.removeprefix(prefix)

    plain.load_state_dict({plain_name(name): tensor for name, tensor in block.state_dict().items()})
    tokens = torch.randn(2, 7, width)
    torch.testing.assert_close(block(tokens), plain(tokens))


def test_image_of_the_towers_own_size_is_only_normalised() -> None:
    image = torch.rand(1, 3, 224, 224) * 2 - 1
    expected = ((image + 1) / 2 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(prepare_for_clip(image, 224), expected)


def test_even_image_stays_even() -> None:
    prepared = prepare_for_clip(torch.full((1, 3, 300, 90), 0.25), 64)
    expected = ((torch.tensor(0.625) - torch.tensor(MEAN)) / torch.tensor(STD)).view(3, 1, 1).expand(3, 64, 64)
    torch.testing.assert_close(prepared[0], expected)
