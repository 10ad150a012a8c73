"""Where a version's weights are looked for, in which order, and what is said where there are none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sgm.checkpoint.files import COMPONENTS, Checkpoint
from sgm.checkpoint.finding import find_checkpoint
from sgm.checkpoint.repository import read_address
from sgm.errors import UserError

PROJECT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders for weights, empty, as is the cache of huggingface.co."""
    monkeypatch.setattr("sgm.checkpoint.finding.checkpoint_folders", lambda: (tmp_path, tmp_path / "second"))
    monkeypatch.setattr("sgm.checkpoint.finding.user_checkpoint_folder", lambda: tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def make_folder(path: Path) -> Path:
    for component, stem in COMPONENTS.items():
        (path / component).mkdir(parents=True)
        (path / component / f"{stem}.safetensors").touch()
    return path


def test_missing_weights_are_told_with_all_that_mends_it(folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        find_checkpoint("svd_xt_image_decoder")
    message = str(caught.value)
    assert f"put svd_xt_image_decoder.safetensors into {folder}" in message
    assert "https://huggingface.co/stabilityai/stable-video-diffusion-img2vid-xt and add --download" in message
    assert "--version svd_tiny" in message
    own = folder / "cache" / "models--stabilityai--stable-video-diffusion-img2vid-xt"
    assert f"to fetch it into {own}, or put" in message, "that is where it goes"
    assert "\n" not in message
    with pytest.raises(UserError, match="--version sv3d_tiny"):
        find_checkpoint("sv3d_u")


def test_a_named_file_or_folder_is_taken(folder: Path) -> None:
    own = folder / "own.safetensors"
    with pytest.raises(UserError, match=r"no checkpoint .*own\.safetensors"):
        find_checkpoint("svd", own)
    own.touch()
    assert find_checkpoint("svd", own) == find_checkpoint("svd", str(own)) == Checkpoint(own)
    assert find_checkpoint("svd", make_folder(folder / "diffusers")) == Checkpoint(folder / "diffusers")
    assert find_checkpoint("svd", Checkpoint(own)) == Checkpoint(own)


@pytest.mark.parametrize("name", ["X.SAFETENSORS", "x.Safetensors", "X.CKPT", "x.PT"])
def test_capitals_are_as_good(folder: Path, name: str) -> None:
    (folder / name).touch()
    assert find_checkpoint("svd", folder / name) == Checkpoint(folder / name)
    assert read_address(f"owner/{name}") is None, "it is meant as a file, there or not"


@pytest.mark.parametrize(
    "more", [[], ["--download"], ["--checkpoint", "owner/name"], ["--checkpoint", "x.ckpt"]], ids=str
)
def test_missing_weights_leave_no_folder(tmp_path: Path, more: list[str]) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    before = sorted(tmp_path.rglob("*"))
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "*"}
    words = ["--input_path", "photo.png", "--version", "svd_xt", *more]
    done = subprocess.run(
        [sys.executable, PROJECT / "sample.py", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_projects_own_file_comes_before_its_folder(folder: Path) -> None:
    make_folder(folder / "svd")
    assert find_checkpoint("svd") == Checkpoint(folder / "svd")
    (folder / "svd.safetensors").touch()
    assert find_checkpoint("svd") == Checkpoint(folder / "svd.safetensors")


def test_the_folders_are_looked_through_in_their_order(folder: Path) -> None:
    (folder / "second").mkdir()
    (folder / "second" / "svd.safetensors").touch()
    assert find_checkpoint("svd") == Checkpoint(folder / "second" / "svd.safetensors")
    make_folder(folder / "svd")
    assert find_checkpoint("svd") == Checkpoint(folder / "svd")


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_folder_that_lacks_a_part_is_told_at_once(folder: Path, component: str) -> None:
    next((make_folder(folder / "svd") / component).iterdir()).unlink()
    with pytest.raises(UserError, match=f"{component}/ has no {COMPONENTS[component]}.safetensors"):
        find_checkpoint("svd")
