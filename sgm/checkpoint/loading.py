"""Reads a checkpoint into a model: strictly, once, and only what sampling uses.

A layout says where a file or a folder keeps each parameter. The model is built on the meta device, its keys and shapes
are compared with the files' headers, and each tensor is then read, converted and assigned, so that no second copy of
the weights ever exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import UserError
from ..models.video_model import VideoModel, empty_model, is_used_when_sampling
from .diffusers_names import diffusers_names
from .files import is_safetensors, weight_files
from .torch_archive import TorchArchive
from .weights import DTYPES, Folder, Safetensors, Shape, Weights, printable

# Halves of the autoencoders that sampling doesn't use. Released files hold them, diffusers' folder has no place for
# them, and a file made from such a folder is without them.
OPTIONAL_PARTS = (
    "conditioner.vae.decoder.",
    "conditioner.vae.post_quant_conv.",
    "first_stage.encoder.",
    "first_stage.quant_conv.",
)


@dataclass(frozen=True)
class Place:
    """Where a layout keeps one parameter.

    keys: nearly always one; of several, each holds an equal share of the parameter's rows, in order.
    form: "same"; "matrix", a 1x1 convolution's weight without its two axes of length 1; or "transposed".
    """

    keys: tuple[str, ...]
    form: Literal["same", "matrix", "transposed"] = "same"

    def is_within(self, component: str) -> bool:
        """Whether the parameter is in this component of a folder."""
        return self.keys[0].startswith(f"{component}/")

    def within(self, component: str) -> Place:
        """The same place with the keys of the component's own file."""
        return replace(self, keys=tuple(key.removeprefix(f"{component}/") for key in self.keys))

    def shapes(self, shape: Shape) -> dict[str, Shape]:
        """The shape of the tensor under each key, for a parameter of this shape."""
        if self.form == "matrix":
            shape = shape[:2]
        elif self.form == "transposed":
            shape = shape[::-1]
        return {key: (shape[0] // len(self.keys), *shape[1:]) if shape else shape for key in self.keys}

    def take_apart(self, parameter: Tensor) -> dict[str, Tensor]:
        """The tensor under each key."""
        if self.form == "matrix":
            parameter = parameter.flatten(1)
        elif self.form == "transposed":
            parameter = parameter.T
        if len(self.keys) == 1:
            return {self.keys[0]: parameter}
        return dict(zip(self.keys, parameter.chunk(len(self.keys)), strict=True))

    def put_together(self, tensors: Sequence[Tensor]) -> Tensor:
        """The parameter, of the tensors under the keys."""
        parameter = tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
        if self.form == "matrix":
            return parameter[:, :, None, None]
        return parameter.T if self.form == "transposed" else parameter


Layout = Mapping[str, Place]


def single_file(model: VideoModel) -> Layout:
    """As Stability AI released the weights."""
    return {name: Place((key,)) for name, key in model.checkpoint_keys()}


def diffusers_folder(model: VideoModel) -> Layout:
    """As diffusers keeps them; keys are `unet/KEY`, `vae/KEY` and `image_encoder/KEY`. OPTIONAL_PARTS have no place."""
    names = diffusers_names(model)
    assert all(name.startswith(OPTIONAL_PARTS) for name in model.state_dict().keys() - names.keys())
    return {name: _place_in_folder(name, key) for name, key in names.items()}


def _place_in_folder(name: str, key: str) -> Place:
    if ".attn.in_proj_" in name:  # queries, keys and values have one weight here and three there
        return Place(tuple(key.replace("{qkv}", letter) for letter in "qkv"))
    if name == "conditioner.clip.proj":
        return Place((key,), "transposed")
    is_attention_of_vae = ".mid.attn_1." in name and ".norm." not in name and name.endswith(".weight")
    return Place((key,), "matrix" if is_attention_of_vae else "same")


# What a checkpoint may hold beside the model: the text tower of CLIP, which the released files carry and image
# conditioning never uses, and the patches' numbers, which transformers wrote before its version 4.31.
_TEXT_TOWER = "conditioner.embedders.0.open_clip.model."
_IMAGE_TOWER = _TEXT_TOWER + "visual."
_POSITION_IDS = "image_encoder/vision_model.embeddings.position_ids"


def open_weights(path: Path) -> Weights:
    """The weights in a file or in diffusers' folder. Raises UserError for what can't be read as such."""
    weight_files(path)
    if path.is_dir():
        return Folder(path)
    return Safetensors(path) if is_safetensors(path) else TorchArchive(path)


@dataclass(frozen=True)
class Comparison:
    """The keys by which a checkpoint differs from what a version needs, each list in order; all empty where it fits."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    @property
    def count(self) -> int:
        """How many keys differ."""
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)

    def summary(self) -> str:
        """How many of each, and the first few by name."""
        return "; ".join(
            f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for kind, keys in vars(self).items()
            if keys
        )


def layout_of(path: Path, model: VideoModel) -> Layout:
    """The layout in which a file or a folder keeps the model."""
    return diffusers_folder(model) if path.is_dir() else single_file(model)


def held_by(found: Mapping[str, Any], layout: Layout) -> Layout:
    """The layout without those of OPTIONAL_PARTS of which nothing was found; a part that is there must be whole."""
    parts = [
        part
        for part in OPTIONAL_PARTS
        if not any(key in found for name, place in layout.items() if name.startswith(part) for key in place.keys)
    ]
    return {name: place for name, place in layout.items() if not name.startswith(tuple(parts))}


def is_beside_the_model(key: str) -> bool:
    """Whether what is under this key of a checkpoint belongs to no part of the model, and is known to."""
    return key == _POSITION_IDS or (key.startswith(_TEXT_TOWER) and not key.startswith(_IMAGE_TOWER))


def compare(weights: Weights, layout: Layout, model: VideoModel) -> Comparison:
    """The keys, shapes and types of a checkpoint against those of a model in that layout."""
    found = weights.shapes
    parameters = model.state_dict()
    expected: dict[str, Shape] = {}
    for name, place in held_by(found, layout).items():
        expected |= place.shapes(tuple(parameters[name].shape))
    return Comparison(
        missing=sorted(expected.keys() - found.keys()),
        unexpected=sorted(printable(key) for key in found.keys() - expected.keys() if not is_beside_the_model(key)),
        misshapen=[
            f"{key} {found[key]} instead of {expected[key]}"
            for key in sorted(expected.keys() & found.keys())
            if found[key] != expected[key]
        ]
        + [
            f"{key} of type {weights.dtypes[key]} instead of {', '.join(DTYPES)}"
            for key in sorted(expected.keys() & found.keys())
            if weights.dtypes[key] not in DTYPES
        ],
    )


def read_parameters(weights: Weights, layout: Layout) -> Iterator[Tensor]:
    """The parameters of a layout one by one, in its order."""
    tensors = weights.tensors(chain.from_iterable(place.keys for place in layout.values()))
    for place in layout.values():
        yield place.put_together([next(tensors) for _ in place.keys])


def load_model(
    config: ModelConfig,
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    track: Callable[[list[str]], Iterable[str]] = iter,
) -> VideoModel:
    """The version's model with the weights of a file or of diffusers' folder on `device`.

    UNet and CLIP get `dtype`; the autoencoders stay float32, as the released sampler runs them. What sampling doesn't
    use is checked and left on the meta device. `track` wraps the list of parameters that are read, for a progress bar.
    Raises UserError for a file that is missing, unreadable or of another structure.
    """
    weights = open_weights(path)
    model = empty_model(config)
    layout = layout_of(path, model)
    if difference := compare(weights, layout, model):
        raise UserError(
            f"{path} does not fit this version: keys {difference.summary()}; is --version the right one?"
            f" `python -m sgm.checkpoint inspect {path}` says what it is"
        )
    used = {name: place for name, place in layout.items() if is_used_when_sampling(name)}
    state: dict[str, Any] = {}
    for name, tensor in zip(track(list(used)), read_parameters(weights, used), strict=True):
        in_vae = name.startswith(("first_stage.", "conditioner.vae."))
        state[name] = tensor.to(device=device, dtype=torch.float32 if in_vae else dtype).contiguous()
    model.load_state_dict(state, strict=False, assign=True)
    return model
