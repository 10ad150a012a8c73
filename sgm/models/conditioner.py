"""What the UNet is conditioned on: the input image in two forms, and scalars such as the motion or the camera."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from ..config import ModelConfig, ScalarConfig
from .clip import CLIPImageTower
from .layers import sinusoid
from .vae import Autoencoder


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
