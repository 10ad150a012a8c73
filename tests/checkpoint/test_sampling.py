"""`sample.py` with weights of either layout, from the disk or from a repository, and its records made again."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sgm.__main__ import sample
from sgm.checkpoint.converting import convert
from sgm.generation.pipeline import load
from sgm.parameters.sample_command import run
from tests.checkpoint.forks import Forks
from tests.checkpoint.hub_server import COMMIT, Hub
from tests.checkpoint.test_hub import Client

PROJECT = Path(__file__).parent.parent.parent
TINY = PROJECT / "checkpoints" / "svd_tiny.safetensors"
QUICK = ("--num_frames", "2", "--num_steps", "1", "--width", "64", "--height", "64", "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layout") / "tiny"
    convert(TINY, folder)
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.radial_gradient("L").convert("RGB").resize((64, 64)).save(path)
    return path


def run_here(*words: object) -> int:
    return run(sample, [str(word) for word in words])


def started_sampling(*words: object, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "sample.py", *(str(word) for word in words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=pipe, stderr=pipe, text=True)


def in_its_own_process(*words: object, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    process = started_sampling(*words, environment=environment)
    said = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, *said)


def made(out: Path) -> tuple[list[bytes], dict[str, Any]]:
    frames = [path.read_bytes() for path in sorted((out / "photo").iterdir())]
    assert len(frames) == 2
    return frames, json.loads((out / "photo.json").read_text())["checkpoint"]


def test_a_folder_makes_the_clip_of_its_file_and_its_record_makes_it_again(
    photo: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--input_path", photo, "--version", "svd_tiny", *QUICK)
    assert run_here(*words, "--output_folder", tmp_path / "file") == 0
    moving = shutil.copytree(folder, tmp_path / "moving")
    assert run_here(*words, "--checkpoint", moving, "--output_folder", tmp_path / "folder") == 0
    frames, _ = made(tmp_path / "file")
    of_folder, recorded = made(tmp_path / "folder")
    assert of_folder == frames
    assert (tmp_path / "folder" / recorded["path"]).resolve() == moving
    assert recorded["sha256"] == {
        path.relative_to(moving).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in moving.glob("*/*.safetensors")
    }
    again = ("--from_record", tmp_path / "folder" / "photo.json", "--output_folder", tmp_path / "again")
    assert run_here(*again) == 0
    assert made(tmp_path / "again") == (frames, recorded)

    shutil.rmtree(moving)
    capsys.readouterr()
    assert run_here(*again) == 2
    assert capsys.readouterr().err.startswith("error: no checkpoint")
    changed = shutil.copytree(folder, tmp_path / "changed")
    weights = changed / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert run_here(*again, "--checkpoint", changed) == 2
    assert "its SHA-256 differs): give the right one with --checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["file", pytest.param("folder", marks=pytest.mark.slow)])
def test_a_repository_makes_the_same_clip_and_its_record_fetches_its_commit(
    layout: str, photo: Path, folder: Path, tmp_path: Path, forks: Forks
) -> None:
    files = {"svd_tiny.safetensors": TINY.read_bytes()}
    if layout == "folder":
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    client = Client(tmp_path / "home", forks)
    words = ("--input_path", photo, "--version", "svd_tiny", "--checkpoint", "owner/name", *QUICK)
    with Hub(files=files) as hub:
        environment = client.environment(hub)
        done = in_its_own_process(*words, "--output_folder", tmp_path / "out", environment=environment)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "add --download" in done.stderr
        assert not (tmp_path / "out").exists()
        done = in_its_own_process(*words, "--download", "--output_folder", tmp_path / "out", environment=environment)
        assert done.returncode == 0, done.stderr
        frames, recorded = made(tmp_path / "out")
        assert (recorded["repository"], recorded["revision"]) == ("owner/name", COMMIT)

        hub.revisions["main"] = "a" * 40  # the branch has moved, and the cache is another machine's
        elsewhere = Client(tmp_path / "elsewhere", forks).environment(hub)
        again = ("--from_record", tmp_path / "out" / "photo.json", "--output_folder", tmp_path / "again")
        done = in_its_own_process(*again, environment=elsewhere)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        hub.revisions["kept"] = COMMIT
        assert in_its_own_process(*again, "--download", environment=elsewhere).returncode == 0
    of_record, recorded_again = made(tmp_path / "again")
    assert of_record == frames
    assert {**recorded_again, "path": ""} == {**recorded, "path": ""}
    assert in_its_own_process(*words, "--output_folder", tmp_path / "offline", environment=environment).returncode == 0
    assert made(tmp_path / "offline") == (frames, recorded)


def test_load_takes_a_folder_too(folder: Path) -> None:
    pipeline = load("svd_tiny", checkpoint=str(folder), device="cpu")
    clip = pipeline(Image.new("RGB", (64, 64)), num_frames=1, num_steps=1)
    assert set(clip.record["checkpoint"]["sha256"]) == {
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "image_encoder/model.safetensors",
    }
