"""What defines a version of the model: frozen dataclasses from the YAML files in `configs/`, and where its weights are.

A configuration is data only: numbers, names and lists. Nothing in it names Python code, so a stranger's file can run
none; an unknown key, a missing one or a value of the wrong kind is an error that names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from .errors import UserError
from .storage.data_files import Bounds, read_dataclass
from .storage.files import config_folder


@dataclass(frozen=True)
class GuidanceConfig:
    """Classifier-free guidance scale of each frame: a line, or a triangle that peaks at the middle frame."""

    shape: Literal["linear", "triangle"]
    min_scale: Annotated[float, Bounds(0, 100)]
    max_scale: Annotated[float, Bounds(0, 100)]

    @property
    def has_effect(self) -> bool:
        """Whether it leads anywhere: if every scale is 1, it gives the conditional prediction alone."""
        return not self.min_scale == self.max_scale == 1


@dataclass(frozen=True)
class ScalarConfig:
    """One scalar that is embedded as a sinusoid of `width` numbers into the UNet's vector conditioning."""

    name: Literal["fps_id", "motion_bucket_id", "cond_aug", "polar_rad", "azimuth_rad"]
    width: Annotated[int, Bounds(2, 4096)]


@dataclass(frozen=True)
class UNetConfig:
    """The video UNet. Level k has `model_channels * channel_mult[k]` channels at 1 / 2^k of the latent's size.

    norm_groups: of every group normalisation. Groups of only one or two channels, as 32 groups would have in a narrow
        network, remove what is constant over the picture, including its colours.
    """

    model_channels: Annotated[int, Bounds(1, 1024)]
    channel_mult: tuple[Annotated[int, Bounds(1, 16)], ...]
    num_res_blocks: Annotated[int, Bounds(1, 16)]
    attention_levels: tuple[Annotated[int, Bounds(0, 7)], ...]
    head_channels: Annotated[int, Bounds(1, 1024)]
    context_dim: Annotated[int, Bounds(1, 8192)]
    norm_groups: Annotated[int, Bounds(1, 1024)]


@dataclass(frozen=True)
class VAEConfig:
    """The autoencoder. Level k has `base_channels * channel_mult[k]` channels; each level but the last halves the size.

    `scale_factor` brings latents to about unit variance: diffusion works on scale_factor * latent.
    """

    latent_channels: Annotated[int, Bounds(1, 256)]
    base_channels: Annotated[int, Bounds(1, 1024)]
    channel_mult: tuple[Annotated[int, Bounds(1, 16)], ...]
    num_res_blocks: Annotated[int, Bounds(1, 16)]
    norm_groups: Annotated[int, Bounds(1, 1024)]
    scale_factor: Annotated[float, Bounds(1e-6, 1e6)]


@dataclass(frozen=True)
class CLIPConfig:
    """The image tower of CLIP, a vision transformer. `embed_dim` is the width of the projected embedding."""

    image_size: Annotated[int, Bounds(1, 2048)]
    patch_size: Annotated[int, Bounds(1, 256)]
    width: Annotated[int, Bounds(1, 8192)]
    layers: Annotated[int, Bounds(1, 128)]
    heads: Annotated[int, Bounds(1, 256)]
    embed_dim: Annotated[int, Bounds(1, 8192)]


@dataclass(frozen=True)
class TextConfig:
    """The encoder of prompts, a transformer over words, and the UNet's attention to what it says.

    words: how many it has room for. tokens: how many it says a text's meaning in; none, and there are no prompts.
    attention_heads, head_channels: of the attention to them. encoder: the project's own, of a few hundred words, or the
    text tower of OpenCLIP's ViT-H-14, whose weights are a file of their own.
    """

    words: Annotated[int, Bounds(1, 2**16)]
    width: Annotated[int, Bounds(1, 4096)]
    layers: Annotated[int, Bounds(1, 64)]
    heads: Annotated[int, Bounds(1, 64)]
    tokens: Annotated[int, Bounds(0, 128)]
    attention_heads: Annotated[int, Bounds(1, 64)]
    head_channels: Annotated[int, Bounds(1, 1024)]
    encoder: Literal["words", "ViT-H-14"] = "words"


NO_TEXT = TextConfig(words=1, width=1, layers=1, heads=1, tokens=0, attention_heads=1, head_channels=1)


@dataclass(frozen=True)
class CheckpointConfig:
    """Where a single-file checkpoint keeps the two autoencoders, and which of their parts it holds.

    The conditioning VAE encodes the input image; the first stage decodes the frames.
    """

    conditioning_vae: str
    conditioning_vae_decoder: bool
    first_stage_encoder: bool
    first_stage_quant_convs: bool


@dataclass(frozen=True)
class ModelConfig:
    """One version of the model. Sizes are in pixels; `width` and `height` are those that the version was trained at.

    input: what the model sees of an image: the whole `picture`, scaled and cropped, or the `object` in it, framed on a
        white square.
    enhance: what is done to the decoded frames, unless something else is asked for.
    ends_at_input: whether the clip's last frame is the input itself, as when an orbit returns to the given view.
    """

    version: str
    input: Literal["picture", "object"]
    ends_at_input: bool
    num_frames: Annotated[int, Bounds(1, 1024)]
    num_steps: Annotated[int, Bounds(1, 1000)]
    width: Annotated[int, Bounds(8, 8192)]
    height: Annotated[int, Bounds(8, 8192)]
    cond_aug: Annotated[float, Bounds(0, 10)]
    decoder: Literal["temporal", "image"]
    enhance: Literal["none", "details"]
    guidance: GuidanceConfig
    scalars: tuple[ScalarConfig, ...]
    unet: UNetConfig
    vae: VAEConfig
    clip: CLIPConfig
    checkpoint: CheckpointConfig
    text: TextConfig = NO_TEXT

    @property
    def vector_width(self) -> int:
        """Width of the vector conditioning: the embedded scalars side by side."""
        return sum(scalar.width for scalar in self.scalars)

    @property
    def latent_factor(self) -> int:
        """Pixels per latent along each side."""
        return int(2 ** (len(self.vae.channel_mult) - 1))

    @property
    def size_multiple(self) -> int:
        """What an image's sides must be divisible by: the UNet halves the latent at each level but the last."""
        return int(self.latent_factor * 2 ** (len(self.unet.channel_mult) - 1))

    @property
    def takes_prompts(self) -> bool:
        """Whether the version reads texts that say what moves how."""
        return self.text.tokens > 0

    @property
    def takes_angles(self) -> bool:
        """Whether the version is conditioned on camera angles."""
        return any(scalar.name == "polar_rad" for scalar in self.scalars)


def load_config(version: str, config_file: Path | None = None) -> ModelConfig:
    """The configuration of a version, from `configs/<version>.yaml` or from a file that replaces it.

    A file may name a `base`: another file's name in the same folder, whose values it changes. Raises UserError for an
    unknown version, a missing file, an unknown or missing key, and a value of the wrong kind.
    """
    known = sorted(path.stem for path in config_folder().glob("*.yaml"))
    if config_file is None and version not in known:
        raise UserError(f"there is no version {version[:100]!r}; the bundled versions are {', '.join(known)}")
    path = config_file or config_folder() / f"{version}.yaml"
    config: ModelConfig = read_dataclass(ModelConfig, path, version=version)
    for complaint in _contradictions(config):
        raise UserError(f"{path.name}: {complaint}")
    return config


def _contradictions(config: ModelConfig) -> Iterator[str]:
    """What makes a model impossible, though each value by itself is valid."""
    unet, vae, clip = config.unet, config.vae, config.clip
    for name, levels in (("unet", unet.channel_mult), ("vae", vae.channel_mult)):
        if not levels:
            yield f"{name}: channel_mult is [], but must hold at least one number"
            return
    names = [scalar.name for scalar in config.scalars]
    if len(set(names)) < len(names):
        yield f"scalars: {', '.join(names)} has a duplicate"
    unet_widths = [unet.model_channels * mult for mult in unet.channel_mult]
    last = len(unet_widths) - 1  # the middle block has its width too, and always has attention
    attending = [width for level, width in enumerate(unet_widths) if level in unet.attention_levels or level == last]
    divisible = [
        *(("unet: model_channels * channel_mult", width, "norm_groups", unet.norm_groups) for width in unet_widths),
        *(("unet: model_channels * channel_mult", width, "head_channels", unet.head_channels) for width in attending),
        *(
            ("vae: base_channels * channel_mult", vae.base_channels * mult, "norm_groups", vae.norm_groups)
            for mult in vae.channel_mult
        ),
        ("clip: image_size", clip.image_size, "patch_size", clip.patch_size),
        ("clip: width", clip.width, "heads", clip.heads),
        ("text: width", config.text.width, "heads", config.text.heads),
        *((f"scalars: width of {scalar.name}", scalar.width, "two", 2) for scalar in config.scalars),
        ("width", config.width, "the model's multiple", config.size_multiple),
        ("height", config.height, "the model's multiple", config.size_multiple),
    ]
    for name, value, divisor_name, divisor in divisible:
        if value % divisor:
            yield f"{name} is {value}, but must be divisible by {divisor_name} ({divisor})"
    if config.input == "object" and config.width != config.height:
        yield f"an object is framed on a square, but width is {config.width} and height {config.height}"
    if unet.context_dim != clip.embed_dim:
        yield f"unet: context_dim is {unet.context_dim}, but must be clip's embed_dim ({clip.embed_dim})"


@dataclass(frozen=True)
class Release:
    """One version's weights. `repository` is Stability AI's on Hugging Face; None for a bundled version."""

    repository: str | None
    bundled_version: str

    @property
    def page(self) -> str:
        """The model's page, where its licence is read and accepted; empty for a bundled version."""
        return f"https://huggingface.co/{self.repository}" if self.repository else ""


RELEASES = {
    "svd": Release("stabilityai/stable-video-diffusion-img2vid", "svd_tiny"),
    "svd_xt": Release("stabilityai/stable-video-diffusion-img2vid-xt", "svd_tiny"),
    "svd_xt_1_1": Release("stabilityai/stable-video-diffusion-img2vid-xt-1-1", "svd_tiny"),
    "svd_image_decoder": Release("stabilityai/stable-video-diffusion-img2vid", "svd_tiny"),
    "svd_xt_image_decoder": Release("stabilityai/stable-video-diffusion-img2vid-xt", "svd_tiny"),
    "sv3d_u": Release("stabilityai/sv3d", "sv3d_tiny"),
    "sv3d_p": Release("stabilityai/sv3d", "sv3d_tiny"),
    "svd_tiny": Release(None, "svd_tiny"),
    "sv3d_tiny": Release(None, "sv3d_tiny"),
}
