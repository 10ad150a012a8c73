"""Checkpoints of a small model that diffusers' classes can run, in both layouts; processes that look for weights."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import Tensor

from sgm.checkpoint.converting import convert
from sgm.config import CLIPConfig, ModelConfig
from tests.checkpoint.forks import Forks
from tests.small_models import deterministic_state, miniature_config, write_config


@pytest.fixture(scope="session")
def svd_config() -> ModelConfig:
    """Every kind of block that diffusers has: three levels, two of them with attention, two blocks a level."""
    config = miniature_config("svd")
    return dataclasses.replace(
        config,
        width=64,
        height=64,
        unet=dataclasses.replace(
            config.unet, channel_mult=(1, 2, 2), num_res_blocks=2, attention_levels=(0, 1), head_channels=16
        ),
        vae=dataclasses.replace(config.vae, channel_mult=(1, 2, 2), num_res_blocks=2),
        clip=CLIPConfig(image_size=224, patch_size=56, width=32, layers=2, heads=2, embed_dim=32),
    )


@pytest.fixture(scope="session")
def svd_state(svd_config: ModelConfig) -> dict[str, Tensor]:
    return deterministic_state(svd_config)


@pytest.fixture(scope="session")
def svd_config_file(svd_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(svd_config, tmp_path_factory.mktemp("config") / "svd.yaml")


@pytest.fixture(scope="session")
def svd_file(svd_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "small.safetensors"
    save_file(svd_state, path)
    return path


@pytest.fixture(scope="session")
def svd_folder(svd_file: Path, svd_config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder") / "small"
    convert(svd_file, folder, version="svd", config=svd_config_file)
    return folder


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("forks")) as forks:
        yield forks
