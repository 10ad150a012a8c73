"""From one layout to another, tensor by tensor: as released in one file, or diffusers' folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from ..config import ModelConfig, load_config
from ..errors import UserError
from ..models.video_model import VideoModel, empty_model
from ..storage.files import write_whole
from .diffusers_configs import write_configs
from .files import COMPONENTS, SUFFIXES, is_safetensors
from .identifying import fitting_versions
from .loading import (
    Layout,
    Place,
    compare,
    diffusers_folder,
    held_by,
    layout_of,
    open_weights,
    read_parameters,
    single_file,
)
from .weights import DTYPES, Weights
from .writing import write_safetensors

PRECISIONS = {"fp16": torch.float16, "fp32": torch.float32}
Track = Callable[[str, list[str]], Iterable[str]]


def check_target(target: Path) -> None:
    """Raises UserError where nothing can be written there; an existing file or folder is never touched."""
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} already exists, and nothing is ever overwritten: give another name")
    if target.suffix.lower() in SUFFIXES and not is_safetensors(target):
        raise UserError(f"{target} can't be written: give a name that ends in .safetensors, or a folder's")
    if not target.parent.is_dir():
        raise UserError(f"there is no folder {target.parent} to write {target.name} to: create it first")


def choose_version(source: Path, target: Path, weights: Weights) -> str:
    """The version of the weights in `source`, by their structure; where several have it, by one of the two names."""
    fitting = fitting_versions(source, weights)
    if not fitting:
        raise UserError(f"{source} fits no version; `python -m sgm.checkpoint inspect {source}` says how they differ")
    named = [version for version in fitting if version in (source.stem, target.stem)]
    if len(fitting) > 1 and not named and not is_safetensors(target):
        raise UserError(
            f"{source} may be {' or '.join(fitting)}, which have the same structure: say which with --version"
        )
    return (named or fitting)[0]


def convert(
    source: Path,
    target: Path,
    *,
    version: str | None = None,
    config: Path | None = None,
    precision: str | None = None,
    track: Track = lambda _, names: names,
) -> ModelConfig:
    """Write the weights of `source` in the layout that the name of `target` asks for; returns what they are.

    A name that ends in .safetensors asks for one file, any other for diffusers' folder. Numbers keep their type, or get
    that of `precision`. What the layout has no place for is left out: sampling uses nothing of it. The target appears
    when it is whole, or not at all. `track` wraps the names that are written to a file, for a progress bar.
    Raises UserError, and OSError where the disk fails.
    """
    check_target(target)
    weights = open_weights(source)
    model_config = load_config(version or choose_version(source, target, weights), config)
    model = empty_model(model_config)
    layout = layout_of(source, model)
    if difference := compare(weights, layout, model):
        raise UserError(f"{source} does not fit {model_config.version}: keys {difference.summary()}")
    held = held_by(weights.shapes, layout)
    if is_safetensors(target):
        write_whole(target, lambda aside: _write(aside, weights, held, single_file(model), model, precision, track))
        return model_config
    places = diffusers_folder(model)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent) as aside:
        folder = Path(aside, "converted")
        folder.mkdir()
        write_configs(folder, model_config)
        for component, stem in COMPONENTS.items():
            inside = {name: place.within(component) for name, place in places.items() if place.is_within(component)}
            _write(folder / component / f"{stem}.safetensors", weights, held, inside, model, precision, track)
        folder.rename(target)
    return model_config


def _write(
    path: Path, weights: Weights, source: Layout, target: Layout, model: VideoModel, precision: str | None, track: Track
) -> None:
    """Write a file of the parameters that both layouts have a place for."""
    dtypes = {name: _dtype(weights, source[name], precision) for name in source if name in target}
    names = sorted(dtypes, key=lambda name: -dtypes[name].itemsize)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    header = {key: (dtypes[name], shape) for name in names for key, shape in target[name].shapes(shapes[name]).items()}

    def tensors() -> Iterator[Tensor]:
        parameters = read_parameters(weights, {name: source[name] for name in names})
        for name, parameter in zip(track(path.name, names), parameters, strict=True):
            yield from target[name].take_apart(_as_type(parameter, dtypes[name], name)).values()

    write_safetensors(path, header, tensors())


def _dtype(weights: Weights, place: Place, precision: str | None) -> torch.dtype:
    """The type that a parameter is written in: the precision's, or its own, the widest where it is of several."""
    if precision is not None:
        return PRECISIONS[precision]
    return reduce(torch.promote_types, (DTYPES[weights.dtypes[key]] for key in place.keys))


def _as_type(parameter: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    converted = parameter.to(dtype)
    if dtype is torch.float16 and converted.isinf().any() and not parameter.isinf().any():
        raise UserError(f"{name} holds numbers beyond 65504, which fp16 can't hold: omit --precision")
    return converted
