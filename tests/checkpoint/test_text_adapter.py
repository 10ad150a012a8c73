"""Text adapters: what they add to a version, their place in the record, and files that are none or don't fit."""

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sgm.__main__ import sample
from sgm.checkpoint import finding
from sgm.checkpoint.files import Checkpoint
from sgm.checkpoint.loading import load_model
from sgm.checkpoint.text_adapter import add_text_adapter, check_text_adapter, save_text_adapter
from sgm.config import load_config
from sgm.errors import UserError
from sgm.generation.pipeline import Pipeline, load
from sgm.parameters.request import make_request
from sgm.parameters.sample_command import run
from sgm.parameters.text_adapter import MAX_HEADER_BYTES, with_text_adapter
from tests.generation.prompted import (
    PLAIN,
    READING,
    TEXT,
    Files,
    adapter_tensors,
    save_adapter,
    write_files,
    zero_adapter,
)
from tests.small_models import deterministic_state


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("versions"))


@pytest.fixture(scope="module")
def adapter(files: Files) -> Path:
    return save_adapter(files.folder / "adapter.safetensors", adapter_tensors())


def plain(files: Files, adapter: Path | None = None) -> Pipeline:
    folder = files.folder
    return load("svd", checkpoint=folder / "plain.safetensors", config=folder / "plain.yaml", text_adapter=adapter)


def frames(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "photo").iterdir())]


def test_one_that_is_zero_adds_nothing_to_the_bit(files: Files) -> None:
    pipeline = plain(files, save_adapter(files.folder / "zero.safetensors", zero_adapter()))
    expected = plain(files)(files.photo).frames
    assert np.array_equal(pipeline(files.photo, prompt="pan left").frames, expected)
    assert np.array_equal(pipeline(files.photo).frames, expected)


def test_version_and_adapter_are_the_version_that_reads_text(files: Files, adapter: Path) -> None:
    pipeline = plain(files, adapter)
    whole = load("svd", checkpoint=files.folder / "reading.safetensors", config=files.folder / "reading.yaml")
    assert pipeline.config == whole.config
    with_prompt = pipeline(files.photo, prompt="pan left").frames
    assert np.array_equal(with_prompt, whole(files.photo, prompt="pan left").frames)
    without = pipeline(files.photo).frames
    assert np.array_equal(without, plain(files)(files.photo).frames)
    assert not np.array_equal(with_prompt, without)


def test_it_is_recorded_and_a_record_makes_the_clip_again(
    files: Files, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [*files.plain, "--text_adapter", str(adapter), "--prompt", "pan left"]
    assert run(sample, [*words, "--output_folder", str(out)]) == 0
    recorded = json.loads((out / "photo.json").read_text())
    described = recorded["checkpoint"]["text_adapter"]
    assert described["sha256"] == hashlib.sha256(adapter.read_bytes()).hexdigest()
    assert recorded["model"]["text"]["width"] == READING.text.width
    again = ["--from_record", str(out / "photo.json"), "--output_folder"]
    assert run(sample, [*again, str(tmp_path / "again")]) == 0
    assert frames(tmp_path / "again") == frames(out)
    other = save_adapter(tmp_path / "other.safetensors", zero_adapter())
    assert run(sample, [*again, str(tmp_path / "other"), "--text_adapter", str(other)]) == 2
    assert "give the right one with --text_adapter" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_without_a_prompt_it_has_no_effect_and_that_is_said(
    files: Files, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*files.plain, "--text_adapter", str(adapter), "--output_folder", str(tmp_path / "out")]
    assert run(sample, words) == 0
    assert "warning: text_adapter has no effect without a prompt" in capsys.readouterr().err


def test_what_is_saved_is_what_is_loaded(files: Files, adapter: Path, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    base = load_model(PLAIN, files.folder / "plain.safetensors", device=cpu, dtype=torch.float32)
    model = add_text_adapter(base, Checkpoint(adapter, text_adapter=adapter), READING, device=cpu, dtype=torch.float32)
    saved = tmp_path / "saved.safetensors"
    save_text_adapter(model, saved)
    assert with_text_adapter(PLAIN, saved) == READING
    copy = add_text_adapter(base, Checkpoint(saved, text_adapter=saved), READING, device=cpu, dtype=torch.float32)
    again = copy.state_dict()
    for name, tensor in model.state_dict().items():
        if not tensor.is_meta:
            is_text = ".attn_text." in name or name.startswith("conditioner.text.")
            assert torch.equal(again[name], tensor.half().float() if is_text else tensor), name


def test_adapters_of_another_structure_are_refused_in_one_line(tmp_path: Path) -> None:
    tensors = adapter_tensors()
    key = next(key for key in tensors if key.endswith("to_k.weight"))
    foreign = {"model.diffusion_model.out.2.bias": torch.zeros(4)}
    for name, changed, told in (
        ("wide", {**tensors, key: torch.zeros(16, 64)}, f"1 misshapen ({key} (16, 64) instead of (16, 32))"),
        ("more", tensors | foreign, "1 unexpected (model.diffusion_model.out.2.bias)"),
        ("less", {k: tensor for k, tensor in tensors.items() if k != key}, f"1 missing ({key})"),
        ("whole", {**tensors, key: torch.zeros(16, 32, dtype=torch.int32)}, f"1 misshapen ({key} of type I32"),
    ):
        path = save_adapter(tmp_path / f"{name}.safetensors", changed)
        with pytest.raises(UserError) as raised:
            check_text_adapter(path, with_text_adapter(PLAIN, path))
        assert f"{path} does not fit svd: keys {told}" in str(raised.value)
        assert "\n" not in str(raised.value)


def test_the_command_line_refuses_them_before_weights_are_looked_for(
    adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--version", "svd", "--prompt", "pan left", "--checkpoint", "nowhere.safetensors"]
    assert run(sample, [*words, "--text_adapter", str(adapter)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not fit svd: keys" in line
    assert line.endswith("give one that was trained for a version of the same structure")


@pytest.mark.parametrize(
    ("version", "told"), [("sv3d_p", "its motion is an orbit: omit it"), ("svd_tiny_next", "reads text by itself")]
)
def test_versions_that_none_goes_with(adapter: Path, version: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        with_text_adapter(load_config(version), adapter)


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def with_metadata(**metadata: str) -> bytes:
    known = {"kind": "sgm text adapter", "version": "svd"}
    return header(json.dumps({"__metadata__": known | metadata}).encode())


def with_text(**text: object) -> bytes:
    known = {"words": 9, "width": 8, "layers": 1, "heads": 1, "tokens": 1, "attention_heads": 1, "head_channels": 8}
    return with_metadata(text=json.dumps(known | text))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is no text adapter"),
        (b"PK\x03\x04 not one at all", "is no text adapter"),
        (header(b"{}"), "metadata don't say kind"),
        (header(b"[1]"), "metadata don't say kind"),
        (header(b"[" * 100000), "metadata don't say kind"),
        (header(b"{}", MAX_HEADER_BYTES + 1), "too long a header"),
        (with_metadata(kind="lora", text="{}"), "another kind of file"),
        (with_metadata(text="{"), "metadata don't say kind"),
        (with_metadata(text="{}"), "'words' is missing"),
        (with_text(width=10**9), "1000000000 is not from 1 to 4096"),
        (with_text(layers="1"), "expected int"),
        (with_text(code="os.system"), "unknown key 'code'"),
        (with_text(tokens=0), "it has no tokens"),
        (with_text(width=9, heads=2), "its width 9 is not divisible by its heads (2)"),
        (with_text(encoder="ViT-H-14", tokens=2), "no room for a word in 2 tokens"),
        (with_text(encoder="T5"), "'T5' is not one of words, ViT-H-14"),
    ],
)
def test_files_that_are_none(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "file.safetensors").write_bytes(content)
    with pytest.raises(UserError) as raised:
        make_request({"version": "svd", "text_adapter": tmp_path / "file.safetensors"})
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.safetensors can't be read \(No such file or directory\)"):
        make_request({"version": "svd", "text_adapter": tmp_path / "none.safetensors"})
    with pytest.raises(UserError, match="can't be read"):
        make_request({"version": "svd", "text_adapter": tmp_path})


def test_with_one_any_prompt_can_be_followed(adapter: Path, files: Files) -> None:
    given = {"version": "svd", "config": files.folder / "plain.yaml", "prompt": "pan left"}
    with pytest.raises(UserError, match="for others give a text_adapter, or a version"):
        make_request(given)
    request = make_request({**given, "text_adapter": adapter})
    assert request.model == replace(PLAIN, text=READING.text)
    assert request.settings.motion_bucket_id == 127


TOWER = replace(TEXT, words=49408, width=PLAIN.unet.context_dim, heads=2, tokens=77, encoder="ViT-H-14")
WITH_TOWER = replace(PLAIN, text=TOWER)


@pytest.fixture
def tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the published one's keys, with a narrow tower, where weights are looked for."""
    tensors = deterministic_state(WITH_TOWER)
    beside = {"text_projection": torch.zeros(2, 2), "logit_scale": torch.zeros(()), "visual.proj": torch.zeros(2, 2)}
    prefix = "conditioner.text."
    inside = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    path = tmp_path / "checkpoints" / "open_clip_model.safetensors"
    path.parent.mkdir()
    save_file({**inside, **beside}, path)
    monkeypatch.setattr(finding, "checkpoint_folders", lambda: (path.parent,))
    return path


def attention_alone() -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in deterministic_state(WITH_TOWER).items() if ".attn_text." in key}


def test_with_clips_text_tower_any_word_counts_and_the_tower_is_recorded(
    files: Files, tower: Path, tmp_path: Path
) -> None:
    adapter = save_adapter(tmp_path / "adapter.safetensors", attention_alone(), WITH_TOWER)
    pipeline = plain(files, adapter)
    clip = pipeline(files.photo, prompt="a dog chases the ball")
    assert not np.array_equal(clip.frames, pipeline(files.photo, prompt="a cat chases the ball").frames)
    assert np.array_equal(pipeline(files.photo).frames, plain(files)(files.photo).frames)
    sha256 = hashlib.sha256(tower.read_bytes()).hexdigest()
    assert clip.record["checkpoint"]["text_tower"] == {"path": str(tower), "sha256": sha256}


def test_a_text_tower_that_is_missing_or_another_is_one_line(
    files: Files, tower: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = save_adapter(tmp_path / "adapter.safetensors", attention_alone(), WITH_TOWER)
    save_file({"ln_final.weight": torch.zeros(3)}, tower)
    with pytest.raises(UserError, match="is not the text tower that the text_adapter needs: keys"):
        plain(files, adapter)
    tower.unlink()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="needs CLIP's text tower: add --download to fetch it from https://hugging"):
        plain(files, adapter)


def test_a_text_tower_of_another_width_is_refused(tmp_path: Path) -> None:
    wide = replace(WITH_TOWER, text=replace(TOWER, width=64))
    adapter = save_adapter(tmp_path / "adapter.safetensors", attention_alone(), wide)
    with pytest.raises(UserError, match="its tokens are 64 wide, but those of svd 32"):
        with_text_adapter(PLAIN, adapter)
