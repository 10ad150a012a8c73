"""What defines a version of the model: frozen dataclasses from the YAML files in `configs/`, and where its weights are.

A configuration is data only: numbers, names and lists. Nothing in it names Python code, so a stranger's file can run
none; an unknown key, a missing one or a value of the wrong kind is an error that names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import UserError
from .storage.folders import config_folder


@dataclass(frozen=True)
class GuidanceConfig:
    """Classifier-free guidance scale of each frame: a line, or a triangle that peaks at the middle frame."""

    shape: Literal["linear", "triangle"]
    min_scale: float
    max_scale: float


@dataclass(frozen=True)
class ScalarConfig:
    """One scalar that is embedded as a sinusoid of `width` numbers into the UNet's vector conditioning."""

    name: Literal["fps_id", "motion_bucket_id", "cond_aug", "polar_rad", "azimuth_rad"]
    width: int


@dataclass(frozen=True)
class UNetConfig:
    """The video UNet. Level k has `model_channels * channel_mult[k]` channels at 1 / 2^k of the latent's size.

    norm_groups: of every group normalisation. Groups of one or two channels, as 32 would be in a narrow network, take
        out what is even over the picture, its colours among it.
    """

    model_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_levels: tuple[int, ...]
    head_channels: int
    context_dim: int
    norm_groups: int


@dataclass(frozen=True)
class VAEConfig:
    """The autoencoder. Level k has `base_channels * channel_mult[k]` channels; each level but the last halves the size.

    `scale_factor` brings latents to about unit variance: diffusion works on scale_factor * latent.
    """

    latent_channels: int
    base_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    norm_groups: int
    scale_factor: float


@dataclass(frozen=True)
class CLIPConfig:
    """The image tower of CLIP, a vision transformer. `embed_dim` is the width of the projected embedding."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    embed_dim: int


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
    """One version of the model. Sizes are pixels, `width` and `height` those that the version was trained at."""

    version: str
    family: Literal["svd", "sv3d"]
    num_frames: int
    num_steps: int
    width: int
    height: int
    cond_aug: float
    decoder: Literal["temporal", "image"]
    guidance: GuidanceConfig
    scalars: tuple[ScalarConfig, ...]
    unet: UNetConfig
    vae: VAEConfig
    clip: CLIPConfig
    checkpoint: CheckpointConfig

    @property
    def vector_width(self) -> int:
        """Width of the vector conditioning: the embedded scalars side by side."""
        return sum(scalar.width for scalar in self.scalars)

    @property
    def latent_factor(self) -> int:
        """How many pixels of a side make one latent."""
        return int(2 ** (len(self.vae.channel_mult) - 1))

    @property
    def size_multiple(self) -> int:
        """What an image's sides must be divisible by: the UNet halves the latent at each level but the last."""
        return int(self.latent_factor * 2 ** (len(self.unet.channel_mult) - 1))

    @property
    def takes_angles(self) -> bool:
        """Whether the version is conditioned on camera angles."""
        return any(scalar.name == "polar_rad" for scalar in self.scalars)


def load_config(version: str, config_file: Path | None = None) -> ModelConfig:
    """The configuration of a version, from `configs/<version>.yaml` or from a file that takes its place.

    A file may name a `base`: another file's name in the same folder, whose values it changes. Raises UserError for an
    unknown version, a missing file, an unknown or missing key, and a value of the wrong kind.
    """
    path = config_file or config_folder() / f"{version}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in config_folder().glob("*.yaml")))
        raise UserError(f"no configuration file {path}; the bundled versions are {known}")
    config: ModelConfig = read_dataclass(ModelConfig, path, version=version)
    for complaint in _contradictions(config):
        raise UserError(f"{path.name}: {complaint}")
    return config


def _contradictions(config: ModelConfig) -> Iterator[str]:
    """What no model can be built from, though every value by itself is of the right kind."""
    unet, vae, clip = config.unet, config.vae, config.clip
    counts = {
        "num_frames": config.num_frames,
        "num_steps": config.num_steps,
        **{f"unet: {name}": value for name, value in vars(unet).items() if isinstance(value, int)},
        **{f"vae: {name}": value for name, value in vars(vae).items() if isinstance(value, int)},
        **{f"clip: {name}": value for name, value in vars(clip).items()},
    }
    for name, count in counts.items():
        if count < 1:
            yield f"{name} is {count}, but must be at least 1"
            return  # what follows divides by some of them
    for name, levels in (("unet", unet.channel_mult), ("vae", vae.channel_mult)):
        if not levels or min(levels) < 1:
            yield f"{name}: channel_mult is {list(levels)}, but must hold at least one number, each at least 1"
            return
    unet_widths = [unet.model_channels * mult for mult in unet.channel_mult]
    last = len(unet_widths) - 1  # its width is the middle's too, which has attention always
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
        *((f"scalars: width of {scalar.name}", scalar.width, "two", 2) for scalar in config.scalars),
        ("width", config.width, "the model's multiple", config.size_multiple),
        ("height", config.height, "the model's multiple", config.size_multiple),
    ]
    for name, value, divisor_name, divisor in divisible:
        if value < 1 or value % divisor:
            yield f"{name} is {value}, but must be divisible by {divisor_name} ({divisor})"
    if unet.context_dim != clip.embed_dim:
        yield f"unet: context_dim is {unet.context_dim}, but must be clip's embed_dim ({clip.embed_dim})"
    if vae.scale_factor <= 0:
        yield f"vae: scale_factor is {vae.scale_factor:g}, but must be above 0"


def read_dataclass(kind: Any, path: Path, **values: Any) -> Any:
    """A YAML file as the frozen dataclass `kind`; `values` are fields that the file does not hold.

    Raises UserError as `load_config` does.
    """
    return _build(kind, _read_with_base(path, seen=()) | values, where=path.name)


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if path in seen:
        raise UserError(f"{path} is its own base; a configuration's bases must end at a file without one")
    try:
        values: Any = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, DictConfig):
        raise UserError(f"{path} must hold a mapping of names to values")
    base = values.pop("base", None)
    if base is not None:
        siblings = sorted(file.stem for file in path.parent.glob("*.yaml"))
        if base not in siblings:
            raise UserError(f"{path} is based on {base!r}, which is not beside it: there are {', '.join(siblings)}")
        values = OmegaConf.merge(_read_with_base(path.with_name(f"{base}.yaml"), (*seen, path)), values)
    plain = OmegaConf.to_container(values, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _build(kind: Any, value: Any, where: str) -> Any:
    """The value as `kind`: a dataclass, a tuple of one kind, a literal, or a plain number, string or truth value."""
    from dataclasses import fields
    from typing import get_args, get_origin, get_type_hints

    if hasattr(kind, "__dataclass_fields__"):
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected a mapping, got {value!r}")
        hints = get_type_hints(kind)
        names = [field.name for field in fields(kind)]
        if unknown := sorted(set(value) - set(names)):
            raise UserError(f"{where}: unknown key {unknown[0]!r}; allowed are {', '.join(names)}")
        if missing := [name for name in names if name not in value]:
            raise UserError(f"{where}: the key {missing[0]!r} is missing")
        return kind(**{name: _build(hints[name], value[name], f"{where}: {name}") for name in names})
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where}: expected a list, got {value!r}")
        return tuple(_build(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UserError(f"{where}: {value!r} is not one of {', '.join(map(str, get_args(kind)))}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UserError(f"{where}: expected {kind.__name__}, got {value!r}")
    return value


@dataclass(frozen=True)
class Release:
    """One version's weights. `repository` is Stability AI's on Hugging Face; None for a version that is in the box."""

    repository: str | None
    bundled_version: str

    @property
    def page(self) -> str:
        """The model's page, where its licence is read and accepted; empty for a version in the box."""
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
