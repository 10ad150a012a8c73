"""Attention that is written short, against the plain way that it stands for."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sgm.config import NO_TEXT
from sgm.models import layers as attention_module
from sgm.models.layers import CrossAttention, SelfAttention, SpatialBlock, TemporalBlock

CHANNELS, CONTEXT_DIM, HEAD_CHANNELS = 64, 48, 16


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Multi-head attention by its definition, (n, l, c) and (n, m, c) -> (n, l, c)."""
    q, k, v = (x.unflatten(-1, (-1, HEAD_CHANNELS)).movedim(-2, 1) for x in (q, k, v))
    scores = torch.einsum("n h l c, n h m c -> n h l m", q, k) / math.sqrt(HEAD_CHANNELS)
    return torch.einsum("n h l m, n h m c -> n l h c", scores.softmax(dim=-1), v).flatten(2)


def plain_cross_attention(attention: CrossAttention, tokens: Tensor, context: Tensor) -> Tensor:
    attended = plain_attention(attention.to_q(tokens), attention.to_k(context), attention.to_v(context))
    return attention.to_out(attended)


def test_self_attention() -> None:
    attention = SelfAttention(CHANNELS, HEAD_CHANNELS)
    tokens = torch.randn(2, 7, CHANNELS)
    attended = plain_attention(attention.to_q(tokens), attention.to_k(tokens), attention.to_v(tokens))
    torch.testing.assert_close(attention(tokens), attention.to_out(attended))


def test_more_sequences_than_the_kernels_take_are_attended_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    attention, tokens = SelfAttention(CHANNELS, HEAD_CHANNELS), torch.randn(7, 5, CHANNELS)
    whole = attention(tokens)
    sizes, kernel = [], F.scaled_dot_product_attention

    def noting_sizes(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        sizes.append(len(q))
        return kernel(q, k, v)

    monkeypatch.setattr(F, "scaled_dot_product_attention", noting_sizes)
    monkeypatch.setattr(attention_module, "MAX_SEQUENCES", 3)
    torch.testing.assert_close(attention(tokens), whole)
    assert sizes == [3, 3, 1]


def test_cross_attention_to_one_token_needs_no_query() -> None:
    attention = CrossAttention(CHANNELS, CONTEXT_DIM, HEAD_CHANNELS)
    tokens, context = torch.randn(2, 7, CHANNELS), torch.randn(2, 1, CONTEXT_DIM)
    norm = torch.nn.LayerNorm(CHANNELS)
    expected = plain_cross_attention(attention, norm(tokens), context)
    attention.to_q.to("meta"), attention.to_k.to("meta"), norm.to("meta")
    torch.testing.assert_close(attention(tokens, norm, context).expand(-1, 7, -1), expected)


def test_cross_attention_to_equal_tokens_is_that_to_one() -> None:
    attention, norm = CrossAttention(CHANNELS, CONTEXT_DIM, HEAD_CHANNELS), torch.nn.LayerNorm(CHANNELS)
    tokens, context = torch.randn(2 * 3, 7, CHANNELS), torch.randn(2, 1, CONTEXT_DIM)
    several = attention(tokens, norm, context.expand(-1, 5, -1))
    torch.testing.assert_close(several, attention(tokens, norm, context).expand(-1, 7, -1))


@pytest.mark.parametrize("context_tokens", [1, 4])
def test_spatial_block_is_the_plain_one(context_tokens: int) -> None:
    block = SpatialBlock(CHANNELS, CONTEXT_DIM, HEAD_CHANNELS)
    tokens, context = torch.randn(2 * 3, 7, CHANNELS), torch.randn(2, context_tokens, CONTEXT_DIM)
    plain = tokens + block.attn1(block.norm1(tokens))
    plain = plain + plain_cross_attention(block.attn2, block.norm2(plain), context[[0, 0, 0, 1, 1, 1]])
    plain = plain + block.ff(block.norm3(plain))
    torch.testing.assert_close(block(tokens, context), plain)


@pytest.mark.parametrize("context_tokens", [1, 4])
def test_temporal_block_is_the_plain_one_pixel_by_pixel(context_tokens: int) -> None:
    block = TemporalBlock(CHANNELS, CONTEXT_DIM, HEAD_CHANNELS, NO_TEXT)
    tokens, context = torch.randn(2 * 3, 7, CHANNELS), torch.randn(2, context_tokens, CONTEXT_DIM)
    result = block(tokens, context, num_frames=3)
    for clip in range(2):
        for pixel in range(7):
            frames = tokens[3 * clip : 3 * clip + 3, pixel][None]
            plain = frames + block.ff_in(block.norm_in(frames))
            plain = plain + block.attn1(block.norm1(plain))
            plain = plain + plain_cross_attention(block.attn2, block.norm2(plain), context[clip : clip + 1])
            plain = plain + block.ff(block.norm3(plain))
            torch.testing.assert_close(result[3 * clip : 3 * clip + 3, pixel], plain[0])
