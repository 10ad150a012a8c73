"""The whole model of a version: conditioner, UNet and first stage, and where a checkpoint keeps each."""

import re
from collections.abc import Iterator

from torch import nn

from ..config import ModelConfig
from .conditioner import Conditioner
from .empty import without_numbers
from .unet import VideoUNet
from .vae import Autoencoder

# Parameters without influence on samples: of cross-attention to one token all but its values, and the halves of the
# autoencoders on the side that is not used.
_UNUSED_WHEN_SAMPLING = re.compile(
    r"unet\..*\.(attn2\.to_[qk]|(transformer_blocks|time_stack)\.0\.norm2)\."
    r"|conditioner\.vae\.(decoder|post_quant_conv)\."
    r"|first_stage\.(encoder|quant_conv)\."
)


class VideoModel(nn.Module):
    """Everything that a checkpoint holds, as modules."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.conditioner = Conditioner(config)
        self.unet = VideoUNet(config.unet, config.vae.latent_channels, config.vector_width, config.text)
        self.first_stage = Autoencoder(
            config.vae,
            encoder=config.checkpoint.first_stage_encoder,
            decoder=True,
            quant_convs=config.checkpoint.first_stage_quant_convs,
            temporal=config.decoder == "temporal",
        )

    def checkpoint_keys(self) -> Iterator[tuple[str, str]]:
        """Pairs of a parameter's name here and its key in a released single-file checkpoint."""
        prefixes = {
            "conditioner.clip.": "conditioner.embedders.0.open_clip.model.visual.",
            "conditioner.text.": "conditioner.text.",
            "conditioner.vae.": f"{self.config.checkpoint.conditioning_vae}.",
            "unet.": "model.diffusion_model.",
            "first_stage.": "first_stage_model.",
        }
        for name in self.state_dict():
            prefix = next(prefix for prefix in prefixes if name.startswith(prefix))
            yield name, prefixes[prefix] + name.removeprefix(prefix)


def empty_model(config: ModelConfig) -> VideoModel:
    """The version's model on the meta device, for evaluation: names, shapes and types without numbers."""
    with without_numbers():
        model = VideoModel(config)
    return model.requires_grad_(False).eval()


def is_used_when_sampling(name: str) -> bool:
    """Whether the parameter of this name has any influence on samples."""
    return _UNUSED_WHEN_SAMPLING.match(name) is None
