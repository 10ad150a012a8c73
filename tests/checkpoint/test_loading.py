"""Single-file checkpoints: the released key lists, what is refused and how it is told, what is read and as what."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sgm.checkpoint.loading import load_model
from sgm.config import ModelConfig, load_config
from sgm.errors import UserError
from sgm.models.video_model import VideoModel, empty_model, is_used_when_sampling
from tests.small_models import deterministic_state, key_list, miniature_config, read_golden

RELEASED = {
    "svd": "svd",
    "svd_xt": "svd",
    "svd_xt_1_1": "svd",
    "svd_image_decoder": "svd_image_decoder",
    "svd_xt_image_decoder": "svd_image_decoder",
    "sv3d_u": "sv3d_u",
    "sv3d_p": "sv3d_p",
}
CLIP_PREFIX = "conditioner.embedders.0.open_clip.model."
SOME_KEY = "model.diffusion_model.time_embed.0.weight"


def keys_and_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    model = empty_model(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return {key: shapes[name] for name, key in model.checkpoint_keys()}


def without_text_tower(keys: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {
        key: shape
        for key, shape in keys.items()
        if not key.startswith(CLIP_PREFIX) or key.startswith(CLIP_PREFIX + "visual.")
    }


@pytest.mark.parametrize("version", RELEASED)
def test_keys_and_shapes_are_those_of_the_released_file(version: str) -> None:
    released = key_list(RELEASED[version])
    assert len(released) > 1900
    assert keys_and_shapes(load_config(version)) == without_text_tower(released)


@pytest.mark.parametrize("version", ["svd", "sv3d_p"])
def test_keys_and_shapes_are_those_of_the_goldens_models(version: str) -> None:
    assert keys_and_shapes(read_golden(version).config) == without_text_tower(key_list(f"{version}_small"))


@pytest.fixture
def config() -> ModelConfig:
    return miniature_config("svd")


@pytest.fixture
def state(config: ModelConfig) -> dict[str, Tensor]:
    return deterministic_state(config)


def load(config: ModelConfig, path: Path, dtype: torch.dtype = torch.float32) -> VideoModel:
    return load_model(config, path, device=torch.device("cpu"), dtype=dtype)


@pytest.mark.parametrize("file_type", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_file_of_either_type_loads_as_either(
    config: ModelConfig, state: dict[str, Tensor], tmp_path: Path, file_type: torch.dtype, dtype: torch.dtype
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({key: tensor.to(file_type) for key, tensor in state.items()}, path)
    model = load(config, path, dtype)
    parameters = model.state_dict()
    for name, key in model.checkpoint_keys():
        if is_used_when_sampling(name):
            expected = torch.float32 if name.startswith(("first_stage.", "conditioner.vae.")) else dtype
            assert parameters[name].dtype == expected
            assert torch.equal(parameters[name], state[key].to(file_type).to(expected)), name


def test_only_what_sampling_uses_is_read(config: ModelConfig, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    read: list[str] = []
    model = load_model(
        config, path, device=torch.device("cpu"), dtype=torch.float32, track=lambda names: read.extend(names) or names
    )
    keys = dict(model.checkpoint_keys())
    left = {keys[name] for name, tensor in model.state_dict().items() if tensor.is_meta}
    assert left == state.keys() - {keys[name] for name in read}
    for part in ("attn2.to_q.weight", "attn2.to_k.weight"):
        assert f"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.{part}" in left
    assert {key for key in state if key.startswith("first_stage_model.encoder.")} <= left
    assert {key for key in state if key.startswith("conditioner.embedders.3.encoder.decoder.")} <= left
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


def test_text_tower_is_dropped(config: ModelConfig, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    leftovers = without_text_tower(key_list("svd")).keys() ^ key_list("svd").keys()
    assert CLIP_PREFIX + "token_embedding.weight" in leftovers
    save_file(state | {key: torch.zeros(1) for key in leftovers}, path)
    load(config, path)


def test_missing_unexpected_and_misshapen_keys_are_named(
    config: ModelConfig, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    gone = [key for key in sorted(state) if key.startswith("first_stage_model.decoder.")][:5]
    for key in gone:
        del state[key]
    state[SOME_KEY] = torch.zeros(3, 5)
    state["model_ema.decay"] = torch.zeros(())
    save_file(state, path)
    with pytest.raises(UserError) as caught:
        load(config, path)
    message = str(caught.value)
    assert str(path) in message
    assert f"5 missing ({gone[0]}, {gone[1]}, {gone[2]}, ...)" in message
    assert "1 unexpected (model_ema.decay)" in message
    assert f"1 misshapen ({SOME_KEY} (3, 5) instead of (128, 32))" in message
    assert "\n" not in message


@pytest.mark.parametrize("other", ["svd_image_decoder", "sv3d_u", "sv3d_p"])
def test_another_versions_file_is_refused(config: ModelConfig, tmp_path: Path, other: str) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(deterministic_state(miniature_config(other)), path)
    with pytest.raises(UserError, match="does not fit this version"):
        load(config, path)


def test_damaged_and_foreign_files_are_told(config: ModelConfig, state: dict[str, Tensor], tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file(state, whole)
    half = whole.read_bytes()[: whole.stat().st_size // 2]
    for name, content in {
        "truncated.safetensors": half,
        "text.safetensors": b"<html>You must accept the licence first</html>",
        "empty.safetensors": b"",
        "text.ckpt": b"<html>You must accept the licence first</html>",
        "empty.ckpt": b"",
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match="is not a readable checkpoint") as caught:
            load(config, path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"no checkpoint .*nowhere\.safetensors"):
        load(config, tmp_path / "nowhere.safetensors")
    with pytest.raises(UserError, match=r"unet/ has no diffusion_pytorch_model\.safetensors"):
        load(config, tmp_path)
    other = tmp_path / "weights.onnx"
    other.touch()
    with pytest.raises(UserError, match=r"allowed are \.safetensors"):
        load(config, other)


def test_a_full_device_is_not_the_files_fault(config: ModelConfig, state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "weights.safetensors")

    def first_then_full(names: list[str]) -> Iterator[str]:
        yield names[0]
        raise torch.OutOfMemoryError("CUDA out of memory")

    cpu = torch.device("cpu")
    with pytest.raises(torch.OutOfMemoryError):
        load_model(config, tmp_path / "weights.safetensors", device=cpu, dtype=torch.float32, track=first_then_full)


def test_a_pickle_cut_short_is_told(config: ModelConfig, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.ckpt"
    torch.save({"state_dict": state}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"is not a readable checkpoint \(it is cut short"):
        load(config, path)


def test_pickle_of_plain_tensors_loads(config: ModelConfig, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.ckpt"
    torch.save({"state_dict": state, "global_step": 3}, path)
    model = load(config, path)
    keys = dict(model.checkpoint_keys())
    assert torch.equal(model.unet.out[2].weight, state[keys["unet.out.2.weight"]])


def test_capitals_in_a_suffix_mean_the_same(config: ModelConfig, state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "X.SAFETENSORS")
    torch.save(state, tmp_path / "X.CKPT")
    for name in ("X.SAFETENSORS", "X.CKPT"):
        model = load(config, tmp_path / name)
        keys = dict(model.checkpoint_keys())
        assert torch.equal(model.unet.out[2].weight, state[keys["unet.out.2.weight"]])


class _MakesAFolder:
    """Unpickled without care, it runs code."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (str(self.folder),)


def test_pickle_that_runs_code_is_refused(config: ModelConfig, state: dict[str, Tensor], tmp_path: Path) -> None:
    path, folder = tmp_path / "weights.ckpt", tmp_path / "made by the pickle"
    torch.save({"state_dict": state, "callbacks": _MakesAFolder(folder)}, path)
    with pytest.raises(UserError, match=r"it holds more than plain tensors: posix mkdir"):
        load(config, path)
    path.write_bytes(pickle.dumps(_MakesAFolder(folder)))
    with pytest.raises(UserError, match="is not a readable checkpoint"):
        load(config, path)
    assert not folder.exists()


@pytest.mark.parametrize(
    "content", [torch.zeros(3), [1, 2], {"state_dict": {"a": 1}}], ids=["tensor", "list", "numbers"]
)
def test_pickle_of_something_else_is_told(config: ModelConfig, tmp_path: Path, content: object) -> None:
    path = tmp_path / "weights.ckpt"
    torch.save(content, path)
    with pytest.raises(UserError, match="is not a readable checkpoint"):
        load(config, path)
