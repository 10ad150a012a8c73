"""Small versions with and without text, as files, for the tests of prompts."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from sgm.config import ModelConfig, TextConfig
from sgm.parameters.text_adapter import adapter_metadata
from tests.small_models import deterministic_state, miniature_config, write_config

TEXT = TextConfig(words=256, width=16, layers=1, heads=2, tokens=3, attention_heads=2, head_channels=8)
PLAIN = miniature_config("svd")
READING = replace(PLAIN, text=TEXT)  # the same version with text


def is_of_text(key: str) -> bool:
    return key.startswith("conditioner.text.") or ".attn_text." in key


def adapter_tensors(config: ModelConfig = READING) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in deterministic_state(config).items() if is_of_text(key)}


def save_adapter(path: Path, tensors: dict[str, Tensor], config: ModelConfig = READING, **metadata: str) -> Path:
    save_file(tensors, path, metadata=adapter_metadata(config) | metadata)
    return path


def zero_adapter() -> dict[str, Tensor]:
    """What an adapter is before it is trained: it adds nothing, whatever the words."""
    return {
        key: torch.zeros_like(tensor) if ".attn_text.to_out." in key else tensor
        for key, tensor in adapter_tensors().items()
    }


@dataclass(frozen=True)
class Files:
    """A folder with a picture, and the words that name the two versions' files."""

    folder: Path

    @property
    def photo(self) -> Path:
        return self.folder / "photo.png"

    @property
    def plain(self) -> list[str]:
        return self._words("plain")

    @property
    def reading(self) -> list[str]:
        return self._words("reading")

    def _words(self, name: str) -> list[str]:
        files = {"checkpoint": f"{name}.safetensors", "config": f"{name}.yaml"}
        named = [word for flag, file in files.items() for word in (f"--{flag}", str(self.folder / file))]
        return ["--input_path", str(self.photo), "--version", "svd", "--device", "cpu", *named]


def write_files(folder: Path) -> Files:
    Image.radial_gradient("L").convert("RGB").resize((32, 32)).save(folder / "photo.png")
    for name, config in (("plain", PLAIN), ("reading", READING)):
        save_file(deterministic_state(config), folder / f"{name}.safetensors")
        write_config(config, folder / f"{name}.yaml")
    return Files(folder)
