"""Which files a checkpoint consists of: one file, or the weights in diffusers' folder, whole or in shards.

Needs no torch, so that missing files are reported at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..parameters.sampling import SamplingSettings
from ..storage.files import describe_file, file_sha256
from .interpolators import InterpolatorWeights

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth")
# The parts of diffusers' folder, and how the names of the files with their weights begin.
COMPONENTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "image_encoder": "model",
}
MAX_NAME_BYTES = 200  # of a file; systems allow 255
MAX_INDEX_BYTES = 10 * 2**20  # of an index of shards; those of models with 20 times the tensors have 1 MiB


@dataclass(frozen=True)
class Checkpoint:
    """Weights that were found: a file, or diffusers' folder; with the repository and commit that they came from.

    text_adapter: a file that adds to them what reads text. text_tower: CLIP's weights, where the adapter needs them.
    interpolator: the weights that make frames between others, where these are asked for.
    """

    path: Path
    repository: str | None = None
    revision: str | None = None
    text_adapter: Path | None = None
    text_tower: Checkpoint | None = None
    interpolator: InterpolatorWeights | None = None

    def used_for(self, settings: SamplingSettings) -> Checkpoint:
        """The part of it that a clip of these settings is made with."""
        return self if settings.finishing.needs_weights else replace(self, interpolator=None)

    def absolute(self) -> Checkpoint:
        """The same by paths that hold in any folder."""
        return replace(
            self,
            path=self.path.absolute(),
            text_adapter=self.text_adapter and self.text_adapter.absolute(),
            text_tower=self.text_tower and self.text_tower.absolute(),
            interpolator=self.interpolator and InterpolatorWeights(self.interpolator.path.absolute()),
        )

    def describe(self) -> dict[str, Any]:
        """For a clip's record: path and SHA-256, of a folder that of each file read; and where it came from.

        So too for what adds text to it.
        """
        files = weight_files(self.path)
        hashes: Any = {file.relative_to(self.path).as_posix(): file_sha256(file) for file in files}
        if not self.path.is_dir():
            hashes = file_sha256(self.path)
        described = {"path": str(self.path.absolute()), "sha256": hashes}
        if self.repository is not None:
            described |= {"repository": self.repository, "revision": self.revision}
        if self.text_adapter is not None:
            described["text_adapter"] = describe_file(self.text_adapter)
        if self.text_tower is not None:
            described["text_tower"] = self.text_tower.describe()
        if self.interpolator is not None:
            described["interpolator"] = self.interpolator.describe()
        return described


def is_safetensors(path: Path) -> bool:
    """Whether a file's name says that it holds safetensors, in small or capital letters."""
    return path.suffix.lower() == ".safetensors"


def is_plain_name(name: str) -> bool:
    """Whether others may give a file this name: no path, not hidden, nothing that a system or a terminal acts on."""
    return (
        bool(name)
        and name.isprintable()
        and len(name.encode(errors="surrogatepass")) <= MAX_NAME_BYTES
        and not name.startswith((".", " "))
        and not set(name) & set('/\\:*?"<>|')
    )


def weight_files(path: Path) -> list[Path]:
    """The files that are read of a checkpoint, in a fixed order. Raises UserError where some are missing."""
    if path.is_dir():
        return [file for component in COMPONENTS for file in component_files(path, component)]
    if not path.is_file():
        raise UserError(f"no checkpoint {path}: give a .safetensors file, or a folder of diffusers' layout")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} is not a checkpoint file; allowed are .safetensors, and .ckpt of plain tensors")
    return [path]


def component_files(folder: Path, component: str) -> list[Path]:
    """The files with one component's weights: those in full precision where they are there, else those in fp16."""
    for name in weight_names(component):
        path = folder / component / name
        if path.is_file():
            return [path] if path.suffix == ".safetensors" else [path.with_name(shard) for shard in _shards(path)]
    raise UserError(
        f"{folder} is not a checkpoint: {component}/ has no {COMPONENTS[component]}.safetensors; give a .safetensors"
        f" file, or a folder of diffusers' layout with {', '.join(f'{component}/' for component in COMPONENTS)}"
    )


def weight_names(component: str) -> Iterator[str]:
    """What a component's file of weights, or its index of shards, may be called, the preferred ones first."""
    stem = COMPONENTS[component]
    for variant in ("", "fp16"):
        dotted = f".{variant}" if variant else ""
        yield f"{stem}{dotted}.safetensors"
        yield f"{stem}.safetensors.index{dotted}.json"


def _shards(index: Path) -> list[str]:
    """The names of the shards in an index, each of a file beside it."""
    bad = f"{index} is not a readable index of shards"
    if index.stat().st_size > MAX_INDEX_BYTES:
        raise UserError(f"{bad} (it is longer than {MAX_INDEX_BYTES >> 20} MiB); fetch it again")
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{bad} (it isn't JSON); fetch it again") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{bad} (it has no weight_map); fetch it again")
    shards = set(weight_map.values()) if all(isinstance(name, str) for name in weight_map.values()) else {""}
    for name in sorted(shards):
        if not (is_plain_name(name) and is_safetensors(Path(name))):
            raise UserError(f"{bad} (it names {name[:80]!r}, which is not a .safetensors file beside it); don't use it")
        if not index.with_name(name).is_file():
            raise UserError(f"{index.with_name(name)} is missing, which {index.name} names; fetch it again")
    return sorted(shards)
