"""What the UNet is conditioned on: the input image, as CLIP's token and as latents, and scalars such as the motion."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ..config import CLIPConfig, ModelConfig, ScalarConfig
from .layers import sinusoid
from .vae import Autoencoder

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
    """Multi-head self-attention with one weight for queries, keys and values."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = _random_parameter(3 * width, width, std=1 / math.sqrt(width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, l, width) -> (n, l, width)."""
        qkv = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        q, k, v = rearrange(qkv, "n l (qkv heads d) -> qkv n heads l d", qkv=3, heads=self.heads)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(rearrange(attended, "n heads l d -> n l (heads d)"))


class Block(nn.Module):
    """A transformer block, normalised before each half."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads)
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


@dataclass(frozen=True)
class Conditioning:
    """Conditions of b clips of t frames each.

    crossattn: (b, m, context_dim), the context's tokens: one, the CLIP embedding of the clip's image.
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

    def forward(
        self, image: Tensor, noise: Tensor, cond_aug: float, values: Mapping[str, Tensor | float], num_frames: int
    ) -> Conditioning:
        """Conditions of a clip from an image (1, 3, H, W) in [-1, 1].

        `noise` has the image's shape: the VAE sees image + cond_aug * noise, not clamped, CLIP the clean image.
        `values` holds every scalar of the version's configuration but cond_aug.
        """
        return Conditioning(
            crossattn=rearrange(self.clip(image), "b c -> b 1 c"),
            concat=repeat(self.vae.encode(image + cond_aug * noise), "1 c h w -> t c h w", t=num_frames),
            vector=embed_scalars(self.scalars, {**values, "cond_aug": cond_aug}, num_frames, image.device),
        )
