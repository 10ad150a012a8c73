"""Prompts: a small encoder of texts, trained with the UNet, and the attention through which they steer it.

It knows a few hundred words, those of `words.py`. The UNet's own cross-attention stays with the image's token: an
attention of its own to the text is added beside it, as an adapter does (arXiv:2308.06721), in each block over frames,
where motion is made. Tokens of zeros add exactly nothing, which is what a clip without a prompt has.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import TextConfig
from .words import MAX_WORDS, Prompt, read_prompt


class TextBlock(nn.Module):
    """A transformer block over the words, normalised first."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.ff = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Tokens (b, l, width), present (b, l), false where there is no word -> (b, l, width)."""
        q, k, v = rearrange(self.to_qkv(self.norm1(tokens)), "b l (three n d) -> three b n l d", three=3, n=self.heads)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=present[:, None, None])
        tokens = tokens + self.to_out(rearrange(attended, "b n l d -> b l (n d)"))
        return tokens + self.ff(self.norm2(tokens))


class TextEncoder(nn.Module):
    """Texts -> a few tokens that say what they mean, read off at places of their own before the words."""

    def __init__(self, config: TextConfig, context_dim: int):
        super().__init__()
        self.num_tokens = config.tokens
        self.words = nn.Embedding(config.words + 1, config.width)
        self.positions = nn.Parameter(torch.randn(config.tokens + MAX_WORDS, config.width) * 0.3)
        self.blocks = nn.ModuleList(TextBlock(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.proj = nn.Linear(config.width, context_dim)

    def read(self, text: str) -> Prompt:
        """The text as the encoder takes it."""
        return read_prompt(text, self.words.num_embeddings - 1)

    def forward(self, prompts: list[Prompt]) -> Tensor:
        """(b, tokens, context_dim); zeros for a prompt without known words."""
        device = self.positions.device
        numbers = torch.zeros(len(prompts), MAX_WORDS, dtype=torch.long, device=device)
        for row, prompt in zip(numbers, prompts, strict=True):
            row[: len(prompt.numbers)] = torch.tensor(prompt.numbers, dtype=torch.long, device=device)
        present = numbers > 0
        tokens = F.pad(self.words(numbers), (0, 0, self.num_tokens, 0)) + self.positions
        seen = F.pad(present, (self.num_tokens, 0), value=True)
        for block in self.blocks:
            tokens = block(tokens, seen)
        meant: Tensor = self.proj(self.norm(tokens[:, : self.num_tokens]))
        return meant * present.any(dim=1)[:, None, None]


class TextAttention(nn.Module):
    """Attention of a clip's tokens to its text, to be added to them."""

    def __init__(self, channels: int, context_dim: int, text: TextConfig):
        super().__init__()
        self.head_channels = text.head_channels
        inner = text.attention_heads * text.head_channels
        self.norm = nn.LayerNorm(channels)
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_k = nn.Linear(context_dim, inner, bias=False)
        self.to_v = nn.Linear(context_dim, inner, bias=False)
        self.to_out = nn.Linear(inner, channels, bias=False)

    def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
        """Tokens (b t) s c, text (b, m, context_dim) -> (b t) s c."""
        frames = len(tokens) // len(text)
        q = rearrange(self.to_q(self.norm(tokens)), "(b t) s (n d) -> b n (t s) d", t=frames, d=self.head_channels)
        k, v = (
            rearrange(project(text), "b m (n d) -> b n m d", d=self.head_channels) for project in (self.to_k, self.to_v)
        )
        attended = F.scaled_dot_product_attention(q, k, v)
        result: Tensor = self.to_out(rearrange(attended, "b n (t s) d -> (b t) s (n d)", t=frames))
        return result
