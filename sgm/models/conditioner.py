"""What the UNet is conditioned on: the input image, as CLIP's token and as latents, and scalars such as the motion."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ..config import CLIPConfig, ModelConfig, ScalarConfig, TextConfig
from .layers import sinusoid
from .text import TextEncoder
from .vae import Autoencoder
from .words import Prompt, read_clip_prompt

# The colour statistics that OpenAI trained CLIP with (arXiv:2103.00020).
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def prepare_for_clip(image: Tensor, size: int) -> Tensor:
    """(n, 3, H, W) in [-1, 1] -> (n, 3, size, size), normalised to CLIP's colour statistics.

    The aspect is not kept. Sides that shrink are blurred first against aliasing, then resized bicubically with the
    corners aligned: with kornia, as the released models were trained.
    """
    from kornia.geometry.transform import resize  # a quarter of a second, which looking at a checkpoint can do without

    image = resize(image, (size, size), interpolation="bicubic", align_corners=True, antialias=True)
    mean, std = (torch.tensor(values, device=image.device).view(3, 1, 1) for values in (MEAN, STD))
    return ((image + 1) / 2 - mean) / std


def _random_parameter(*shape: int, std: float) -> nn.Parameter:
    # Drawn in place: arithmetic with new tensors would import torch's compiler on the meta device, more than a second.
    return nn.Parameter(nn.init.normal_(torch.empty(shape), std=std))


class MLP(nn.Module):
    """Two layers with a GELU between."""

    def __init__(self, width: int):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, l, width) -> (n, l, width)."""
        return self.c_proj(F.gelu(self.c_fc(tokens)))


class SelfAttention(nn.Module):
    """Multi-head self-attention with one weight for queries, keys and values; causal: to earlier tokens only."""

    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.in_proj_weight = _random_parameter(3 * width, width, std=1 / math.sqrt(width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, l, width) -> (n, l, width)."""
        qkv = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        q, k, v = rearrange(qkv, "n l (qkv heads d) -> qkv n heads l d", qkv=3, heads=self.heads)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(rearrange(attended, "n heads l d -> n l (heads d)"))


class Block(nn.Module):
    """A transformer block, normalised before each half."""

    def __init__(self, width: int, heads: int, causal: bool = False):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads, causal)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, l, width) -> (n, l, width)."""
        tokens = tokens + self.attn(self.ln_1(tokens))
        return tokens + self.mlp(self.ln_2(tokens))


class CLIPImageTower(nn.Module):
    """The vision transformer of CLIP; parameter names are those of open_clip's `model.visual`.

    It gives what open_clip's own class gives, without four seconds of imports before the first clip.
    """

    def __init__(self, config: CLIPConfig):
        super().__init__()
        patches = (config.image_size // config.patch_size) ** 2
        scale = 1 / math.sqrt(config.width)
        self.image_size = config.image_size
        self.conv1 = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = _random_parameter(config.width, std=scale)
        self.positional_embedding = _random_parameter(patches + 1, config.width, std=scale)
        self.ln_pre = nn.LayerNorm(config.width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))
        self.ln_post = nn.LayerNorm(config.width)
        self.proj = _random_parameter(config.width, config.embed_dim, std=scale)

    def forward(self, image: Tensor) -> Tensor:
        """The embedding (n, embed_dim), not normalised, of images (n, 3, H, W) in [-1, 1] of any size."""
        pixels = prepare_for_clip(image.float(), self.image_size).to(self.proj.dtype)
        patches = rearrange(self.conv1(pixels), "n c h w -> n (h w) c")
        token = self.class_embedding.expand(len(patches), 1, -1)
        tokens = self.ln_pre(torch.cat([token, patches], dim=1) + self.positional_embedding)
        for block in cast(nn.ModuleList, self.transformer.resblocks):
            tokens = block(tokens)
        return self.ln_post(tokens[:, 0]) @ self.proj


class CLIPTextTower(nn.Module):
    """The text transformer of CLIP; parameter names are those of open_clip's model, which it is a part of.

    Every token of the last layer is given, as Stable Diffusion takes them (arXiv:2112.10752), not the embedding alone.
    """

    def __init__(self, config: TextConfig):
        super().__init__()
        self.num_tokens = config.tokens
        self.token_embedding = nn.Embedding(config.words, config.width)
        self.positional_embedding = _random_parameter(config.tokens, config.width, std=0.01)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(
            Block(config.width, config.heads, causal=True) for _ in range(config.layers)
        )
        self.ln_final = nn.LayerNorm(config.width)

    def read(self, text: str) -> Prompt:
        """The text as the tower takes it."""
        return read_clip_prompt(text, self.num_tokens)

    def forward(self, prompts: list[Prompt]) -> Tensor:
        """(b, tokens, width); zeros for a prompt without words."""
        device = self.positional_embedding.device
        numbers = torch.zeros(len(prompts), self.num_tokens, dtype=torch.long, device=device)
        for row, prompt in zip(numbers, prompts, strict=True):
            row[: len(prompt.numbers)] = torch.tensor(prompt.numbers, dtype=torch.long, device=device)
        tokens = self.token_embedding(numbers) + self.positional_embedding
        for block in cast(nn.ModuleList, self.transformer.resblocks):
            tokens = block(tokens)
        return self.ln_final(tokens) * numbers.any(dim=1)[:, None, None]


@dataclass(frozen=True)
class Conditioning:
    """Conditions of b clips of t frames each.

    crossattn: (b, m, context_dim), the context's tokens: one, the CLIP embedding of the clip's image, and behind it,
        in versions that take prompts, those of the text.
    concat: (b t, latent_channels, h, w), the image's latents of each frame, not multiplied by the scale factor.
    vector: (b t, vector_width), the embedded scalars of each frame.
    """

    crossattn: Tensor
    concat: Tensor
    vector: Tensor

    @property
    def num_clips(self) -> int:
        """b."""
        return len(self.crossattn)

    @property
    def num_frames(self) -> int:
        """t."""
        return len(self.vector) // len(self.crossattn)

    @classmethod
    def join(cls, conditions: Sequence["Conditioning"]) -> "Conditioning":
        """The conditions of all clips, which have one size and number of frames."""
        return cls(
            crossattn=torch.cat([condition.crossattn for condition in conditions]),
            concat=torch.cat([condition.concat for condition in conditions]),
            vector=torch.cat([condition.vector for condition in conditions]),
        )

    def to(self, device: torch.device | str) -> "Conditioning":
        """The same on a device."""
        return Conditioning(self.crossattn.to(device), self.concat.to(device), self.vector.to(device))

    def of_frames(self, own: slice) -> "Conditioning":
        """Of some frames of each clip."""
        concat, vector = (
            rearrange(rearrange(each, "(b t) ... -> b t ...", t=self.num_frames)[:, own], "b t ... -> (b t) ...")
            for each in (self.concat, self.vector)
        )
        return Conditioning(self.crossattn, concat, vector)

    def unconditional(self) -> "Conditioning":
        """The same scalars without the image: what guidance leads away from."""
        return Conditioning(torch.zeros_like(self.crossattn), torch.zeros_like(self.concat), self.vector)


def embed_scalars(
    scalars: Sequence[ScalarConfig], values: Mapping[str, Tensor | float], num_frames: int, device: torch.device | str
) -> Tensor:
    """The scalars' sinusoids side by side, float32 (num_frames, sum of widths).

    A value is one number for the whole clip or one for each frame (num_frames,).
    """
    columns = []
    for scalar in scalars:
        per_frame = torch.as_tensor(values[scalar.name], device=device).expand(num_frames)
        columns.append(sinusoid(per_frame, scalar.width))
    return torch.cat(columns, dim=1)


class Conditioner(nn.Module):
    """Turns an image and scalars into the UNet's conditions."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.scalars = config.scalars
        self.clip = CLIPImageTower(config.clip)
        self.vae = Autoencoder(
            config.vae,
            encoder=True,
            decoder=config.checkpoint.conditioning_vae_decoder,
            quant_convs=True,
            temporal=False,
        )
        if config.text.tokens > 0:
            self.text: TextEncoder | CLIPTextTower = (
                TextEncoder(config.text, config.unet.context_dim)
                if config.text.encoder == "words"
                else CLIPTextTower(config.text)
            )

    def forward(
        self,
        image: Tensor,
        noise: Tensor,
        cond_aug: float,
        values: Mapping[str, Tensor | float],
        num_frames: int,
        prompt: Prompt | None = None,
    ) -> Conditioning:
        """Conditions of a clip from an image (1, 3, H, W) in [-1, 1].

        `noise` has the image's shape: the VAE sees image + cond_aug * noise, not clamped, CLIP the clean image.
        `values` holds every scalar of the version's configuration but cond_aug. A prompt is for versions with an
        encoder of texts only; without one the context is the image's token alone.
        """
        return Conditioning(
            crossattn=self.context(image, prompt),
            concat=repeat(self.vae.encode(image + cond_aug * noise), "1 c h w -> t c h w", t=num_frames),
            vector=embed_scalars(self.scalars, {**values, "cond_aug": cond_aug}, num_frames, image.device),
        )

    def context(self, image: Tensor, prompt: Prompt | None) -> Tensor:
        """The tokens (1, m, context_dim) of an image (1, 3, H, W), and behind it those of a prompt."""
        of_image = rearrange(self.clip(image), "b c -> b 1 c")
        return of_image if prompt is None else torch.cat([of_image, self.text([prompt])], dim=1)
