"""Reads a released single-file checkpoint into a model: strictly, once, and only what sampling uses.

The model is built on the meta device, its keys and shapes are compared with the file's header, and each tensor is then
read, converted and assigned, so that no second copy of the weights ever exists.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .config import ModelConfig
from .errors import UserError
from .models.video_model import VideoModel, is_used_when_sampling

# The text tower of CLIP, which the released files carry and image conditioning never uses.
_TEXT_TOWER = "conditioner.embedders.0.open_clip.model."
_IMAGE_TOWER = _TEXT_TOWER + "visual."
# A mapped file's pages count as memory while it is open, so it is opened anew after this many bytes.
_BYTES_BETWEEN_REOPENINGS = 256 * 2**20


class _Reader(Protocol):
    def shapes(self) -> dict[str, tuple[int, ...]]: ...

    def tensors(self, keys: Iterable[str]) -> Iterator[Tensor]: ...


class _SafetensorsReader:
    def __init__(self, path: Path):
        self.path = path

    def shapes(self) -> dict[str, tuple[int, ...]]:
        with safe_open(self.path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118

    def tensors(self, keys: Iterable[str]) -> Iterator[Tensor]:
        remaining = list(keys)[::-1]
        while remaining:
            budget = _BYTES_BETWEEN_REOPENINGS
            with safe_open(self.path, framework="pt") as file:
                while remaining and budget > 0:
                    tensor = file.get_tensor(remaining.pop())
                    budget -= tensor.nbytes
                    yield tensor


class _PickleReader:
    def __init__(self, path: Path):
        if not zipfile.is_zipfile(path):
            raise pickle.UnpicklingError("it is cut short, or not what torch.save has written since version 1.6")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:  # its own words explain how to run the file's code
            raise pickle.UnpicklingError("it holds more than plain tensors") from error
        self.state: dict[str, Tensor] = content.get("state_dict", content)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: tuple(tensor.shape) for key, tensor in self.state.items()}

    def tensors(self, keys: Iterable[str]) -> Iterator[Tensor]:
        return (self.state[key] for key in keys)


@contextmanager
def _telling_of_bad_files(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} is not a readable checkpoint ({reason}); fetch the file again, or give another with --checkpoint"
        ) from error


def _read(reader: _Reader, path: Path, keys: Iterable[str]) -> Iterator[Tensor]:
    """The tensors of the keys; what the caller does with them is not the file's fault."""
    with _telling_of_bad_files(path):
        yield from reader.tensors(keys)


def _open(path: Path) -> _Reader:
    if not path.is_file():
        raise UserError(f"no checkpoint file {path}; give an existing one with --checkpoint")
    if path.suffix == ".safetensors":
        return _SafetensorsReader(path)
    if path.suffix in (".ckpt", ".pt", ".pth"):
        with _telling_of_bad_files(path):
            return _PickleReader(path)
    raise UserError(f"{path} is no checkpoint file; allowed are .safetensors, and .ckpt of plain tensors")


def compare_keys(path: Path, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> None:
    """Raises UserError that names the first few keys which are missing, unexpected or misshapen in the file."""
    leftovers = {key for key in found if key.startswith(_TEXT_TOWER) and not key.startswith(_IMAGE_TOWER)}
    complaints = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys() - leftovers),
        "misshapen": [
            f"{key} {found[key]} instead of {expected[key]}"
            for key in sorted(expected.keys() & found.keys())
            if found[key] != expected[key]
        ],
    }
    told = [
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in complaints.items()
        if keys
    ]
    if told:
        raise UserError(f"{path} does not fit this version: keys {'; '.join(told)}; is --version the right one?")


def load_model(
    config: ModelConfig,
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    track: Callable[[list[str]], Iterable[str]] = iter,
) -> VideoModel:
    """The version's model with the file's weights on `device`.

    UNet and CLIP get `dtype`; the autoencoders stay float32, as the released sampler runs them. What sampling doesn't
    use is checked and left on the meta device. `track` wraps the list of parameters that are read, for a progress bar.
    Raises UserError for a file that is missing, unreadable or of another structure.
    """
    with torch.device("meta"):
        model = VideoModel(config)
    model.requires_grad_(False).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    keys = dict(model.checkpoint_keys())
    reader = _open(path)
    with _telling_of_bad_files(path):
        found = reader.shapes()
    compare_keys(path, {keys[name]: shape for name, shape in shapes.items()}, found)

    names = [name for name in keys if is_used_when_sampling(name)]
    state: dict[str, Any] = {}
    tensors = _read(reader, path, (keys[name] for name in names))
    for name, tensor in zip(track(names), tensors, strict=True):
        in_vae = name.startswith(("first_stage.", "conditioner.vae."))
        state[name] = tensor.to(device=device, dtype=torch.float32 if in_vae else dtype)
    model.load_state_dict(state, strict=False, assign=True)
    return model
