"""Where a layout keeps each of a model's parameters, and in what form: one file as released, or diffusers' folder.

A layout is a dict from a parameter's name in `VideoModel` to its `Place`. Reading, converting and comparing all go by
it, so each of them knows both layouts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..models.video_model import VideoModel
from .diffusers_names import diffusers_names
from .weights import Shape

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
