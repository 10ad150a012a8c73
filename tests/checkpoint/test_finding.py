"""Where a version's weights are looked for, in which order, and what is said where there are none."""

from pathlib import Path

import pytest

from sgm.checkpoint.files import COMPONENTS, Checkpoint
from sgm.checkpoint.finding import find_checkpoint
from sgm.errors import UserError


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
