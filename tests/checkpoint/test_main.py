"""`python -m sgm.checkpoint`: conversions there and back, what is said of a checkpoint, and what is refused."""

import dataclasses
import json
import math
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sgm.checkpoint import converting, identifying
from sgm.checkpoint.__main__ import main
from sgm.checkpoint.converting import convert
from sgm.checkpoint.files import weight_files
from sgm.checkpoint.loading import OPTIONAL_PARTS
from sgm.config import ModelConfig, load_config
from sgm.models.video_model import VideoModel, empty_model
from tests.small_models import deterministic_state, key_list

PROJECT = Path(__file__).parent.parent.parent
TINY = PROJECT / "checkpoints" / "svd_tiny.safetensors"


def run(*words: object) -> int:
    return main([str(word) for word in words])


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


@pytest.mark.parametrize("version", ["svd_tiny", "sv3d_tiny"])
def test_there_and_back_nothing_changes(version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = PROJECT / "checkpoints" / f"{version}.safetensors"
    assert run("convert", source, tmp_path / "folder") == 0
    assert f"folder: {version}\n" in capsys.readouterr().out
    assert run("convert", tmp_path / "folder", tmp_path / "back.safetensors") == 0
    assert same(load_file(source), load_file(tmp_path / "back.safetensors"))
    assert run("convert", tmp_path / "back.safetensors", tmp_path / "again") == 0
    first, again = (weight_files(tmp_path / name) for name in ("folder", "again"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "back.safetensors", "folder"]


def test_only_what_sampling_never_uses_is_left_out(
    svd_state: dict[str, Tensor], svd_config_file: Path, svd_folder: Path, tmp_path: Path
) -> None:
    back = tmp_path / "back.safetensors"
    config = convert(svd_folder, back, version="svd", config=svd_config_file)
    with torch.device("meta"):
        names = dict(VideoModel(config).checkpoint_keys())
    left_out = {key for name, key in names.items() if name.startswith(OPTIONAL_PARTS)}
    assert len(left_out) > 50
    assert same(load_file(back), {key: tensor for key, tensor in svd_state.items() if key not in left_out})


def test_precision_is_as_asked_for(svd_state: dict[str, Tensor], tmp_path: Path) -> None:
    assert run("convert", TINY, tmp_path / "full.safetensors", "--precision", "fp32") == 0
    halves, full = load_file(TINY), load_file(tmp_path / "full.safetensors")
    assert same({key: tensor.float() for key, tensor in halves.items()}, full)
    assert run("convert", tmp_path / "full.safetensors", tmp_path / "half", "--precision=fp16") == 0
    assert run("convert", tmp_path / "half", tmp_path / "half.safetensors") == 0
    assert same(halves, load_file(tmp_path / "half.safetensors"))


def test_mixed_types_stay_as_they_are(tmp_path: Path) -> None:
    mixed = {key: tensor.float() if "norm" in key else tensor for key, tensor in load_file(TINY).items()}
    mixed["first_stage_model.decoder.conv_in.bias"] = mixed["first_stage_model.decoder.conv_in.bias"].bfloat16()
    save_file(mixed, tmp_path / "mixed.safetensors")
    assert run("convert", tmp_path / "mixed.safetensors", tmp_path / "folder") == 0
    assert run("convert", tmp_path / "folder", tmp_path / "back.safetensors") == 0
    assert same(mixed, load_file(tmp_path / "back.safetensors"))


def test_numbers_beyond_fp16_are_not_lost_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = {key: tensor.float() for key, tensor in load_file(TINY).items()}
    large["model.diffusion_model.out.2.bias"][0] = 1e5
    save_file(large, tmp_path / "large.safetensors")
    for target in ("half.safetensors", "half"):
        assert run("convert", tmp_path / "large.safetensors", tmp_path / target, "--precision", "fp16") == 2
        assert "unet.out.2.bias holds numbers beyond 65504" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["large.safetensors"]


def test_a_pickle_becomes_safetensors(tmp_path: Path) -> None:
    torch.save({"state_dict": load_file(TINY)}, tmp_path / "tiny.ckpt")
    assert run("convert", tmp_path / "tiny.ckpt", tmp_path / "tiny.safetensors") == 0
    assert same(load_file(TINY), load_file(tmp_path / "tiny.safetensors"))


def test_a_target_in_capitals_is_a_file_too(tmp_path: Path) -> None:
    assert run("convert", TINY, tmp_path / "NEW.SAFETENSORS") == 0
    assert same(load_file(TINY), load_file(tmp_path / "NEW.SAFETENSORS"))


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept.safetensors").write_bytes(b"kept")
    (tmp_path / "kept").mkdir()
    for name in ("kept.safetensors", "kept"):
        assert run("convert", TINY, tmp_path / name) == 2
        assert "nothing is ever overwritten" in capsys.readouterr().err
    assert (tmp_path / "kept.safetensors").read_bytes() == b"kept"


@pytest.mark.parametrize("name", ["new.safetensors", "new"])
def test_a_disk_that_fills_up_leaves_nothing(name: str, tmp_path: Path) -> None:
    def allow_a_mib() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    done = subprocess.run(
        [sys.executable, "-m", "sgm.checkpoint", "convert", TINY, tmp_path / name],
        cwd=PROJECT,
        preexec_fn=allow_a_mib,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "error: [Errno 27] File too large\n"
    assert not list(tmp_path.iterdir())


def test_a_killed_conversion_leaves_nothing_under_its_name(tmp_path: Path) -> None:
    script = (
        "import os, sys, sgm.checkpoint.converting as c\n"
        "whole = c.write_safetensors\n"
        "def then_die(path, *rest):\n    whole(path, *rest)\n    os.kill(os.getpid(), 9)\n"
        "c.write_safetensors = then_die\n"
        "from sgm.checkpoint.__main__ import main\nmain(sys.argv[1:])\n"
    )
    for target in (tmp_path / "new.safetensors", tmp_path / "new"):
        done = subprocess.run([sys.executable, "-c", script, "convert", TINY, target], cwd=PROJECT, check=False)
        assert done.returncode == -9
        assert not target.exists()
        assert run("convert", TINY, target) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "which file or folder"),
        (("nowhere.safetensors",), "no checkpoint nowhere.safetensors"),
        (("one.safetensors", "two.safetensors"), "'two.safetensors' belongs to no parameter"),
        (("one.safetensors", "--version", "svd"), "there is no parameter 'version'"),
    ],
)
def test_inspect_tells_mistakes(words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", *words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert told in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((TINY,), "from what to what"),
        (("nowhere", "new"), "no checkpoint nowhere"),
        ((TINY, "absent/new"), "no folder absent"),
        ((TINY, "new.ckpt"), "ends in .safetensors"),
        ((TINY, "new.PTH"), "ends in .safetensors"),
        ((TINY, "new", "--version", "svd"), "does not fit svd"),
        ((TINY, "new", "--precision", "fp8"), "precision can't be 'fp8'"),
        ((TINY, "new", "--config", "configs/svd_tiny.yaml"), "config is given without version"),
    ],
)
def test_convert_tells_mistakes(
    words: tuple[object, ...],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("convert", *words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert told in captured.err
    assert not list(tmp_path.iterdir())


def test_unknown_actions_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("destroy", "x") == 2
    assert "'destroy'" in capsys.readouterr().err
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("inspect", "convert", "--precision", "--version", "--config"))


def write_headers(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Files with the shapes of a whole model, of which no byte is on the disk."""
    header, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.mark.parametrize(
    ("keys", "versions"),
    [
        ("svd", "svd or svd_xt or svd_xt_1_1"),
        ("svd_image_decoder", "svd_image_decoder or svd_xt_image_decoder"),
        ("sv3d_u", "sv3d_u"),
        ("sv3d_p", "sv3d_p"),
    ],
)
def test_released_files_are_recognised(
    keys: str, versions: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = key_list(keys)
    write_headers(tmp_path / "weights.safetensors", shapes)
    assert run("inspect", tmp_path / "weights.safetensors") == 0
    said = capsys.readouterr().out
    assert f"version: {versions}\n" in said
    assert f"single file, {(tmp_path / 'weights.safetensors').stat().st_size / 2**30:.2f} GiB, " in said
    assert f"{len(shapes)} tensors: {len(shapes)} in fp16" in said
    assert "tensors that images don't need" in said


def test_a_folder_is_recognised_with_its_precisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(TINY, tmp_path / "folder")
    file = tmp_path / "folder" / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    save_file({key: tensor.float() for key, tensor in weights.items()}, file)
    assert run("inspect", tmp_path / "folder") == 0
    said = capsys.readouterr().out
    assert "folder: diffusers folder, " in said
    assert "version: svd_tiny\n" in said
    assert f"{len(weights)} in fp32" in said


def test_what_is_missing_and_extra_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = load_file(TINY)
    lost = [key for key in sorted(state) if key.startswith("first_stage_model.decoder.up.")]
    for key in lost:
        del state[key]
    state["model_ema.decay"] = torch.zeros(1)
    state["model.diffusion_model.out.2.bias"] = torch.zeros(7, dtype=torch.int8)
    save_file(state, tmp_path / "odd.safetensors")
    assert run("inspect", tmp_path / "odd.safetensors") == 1
    said = capsys.readouterr().out
    assert "version: none; the nearest is svd_tiny" in said
    assert f"missing: {len(lost)}\n  {lost[0]}\n" in said
    assert f"... and {len(lost) - 20} more" in said
    assert "unexpected: 1\n  model_ema.decay\n" in said
    assert "out.2.bias (7,) instead of (16,)" in said
    assert "out.2.bias of type I8 instead of F16, BF16, F32, F64" in said
    assert "1 in I8" in said


def test_two_versions_of_one_structure_are_told_apart_by_name_or_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = load_config("svd_tiny")

    def small(version: str, path: Path | None = None) -> ModelConfig:
        return dataclasses.replace(tiny, version=version, num_frames=load_config(version).num_frames)

    monkeypatch.setattr(identifying, "load_config", small)
    monkeypatch.setattr(identifying, "_model", lambda version: empty_model(small(version)))
    monkeypatch.setattr(converting, "load_config", small)
    save_file(deterministic_state(tiny), tmp_path / "weights.safetensors")
    weights = tmp_path / "weights.safetensors"
    assert run("convert", weights, tmp_path / "new") == 2
    assert "say which with --version" in capsys.readouterr().err
    assert run("convert", weights, tmp_path / "svd_xt") == 0
    assert '"num_frames": 25' in (tmp_path / "svd_xt" / "unet" / "config.json").read_text()
    assert run("convert", weights, tmp_path / "other", "--version", "svd") == 0
    assert '"num_frames": 14' in (tmp_path / "other" / "unet" / "config.json").read_text()
    shutil.rmtree(tmp_path / "other")
    assert run("convert", tmp_path / "svd_xt", tmp_path / "back.safetensors") == 0
