"""`python -m sgm.watermark` on files that this project and others write."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from sgm.outputs.pictures import write_frames
from sgm.outputs.provenance import Provenance
from sgm.outputs.video import write_video
from sgm.watermark.__main__ import main
from sgm.watermark.embedding import embed_watermark

PHOTOGRAPHS = ("astronaut", "rocket", "chelsea")


def frames_of(photograph: str) -> np.ndarray:
    """Three frames that glide over a photograph, uint8 (3, 288, 384, 3)."""
    picture = getattr(skimage.data, photograph)()[..., :3]
    return np.stack([picture[t : t + 288, 2 * t : 2 * t + 384] for t in range(3)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each photograph marked.mp4, marked.png and a folder of JPEGs, and the same without the mark."""
    folder = tmp_path_factory.mktemp("files")
    provenance = Provenance("sgm 1.2.3", "svd_tiny")
    for name in PHOTOGRAPHS:
        plain = frames_of(name)
        for kind, frames in (("marked", embed_watermark(plain)), ("plain", plain)):
            write_video(folder / f"{name}-{kind}.mp4", frames, 6, 95, provenance)
            write_frames(folder / f"{name}-{kind}", frames, 95, provenance)
            Image.fromarray(frames[0]).save(folder / f"{name}-{kind}.png")
    return folder


@pytest.mark.parametrize("suffix", [".mp4", ".png", ""])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_marked_and_unmarked_are_told_apart(
    folder: Path, name: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    marked, plain = (str(folder / f"{name}-{kind}{suffix}") for kind in ("marked", "plain"))
    frames = "1 frame\n" if suffix == ".png" else "3 frames\n"
    assert main([marked]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{marked}: marked: 4")
    assert said.endswith(f"of 48 bits agree over {frames}")
    assert main([plain]) == 1
    assert f"{plain}: not marked: " in capsys.readouterr().out


def test_one_without_the_mark_among_many(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [folder / f"astronaut-{end}" for end in ("marked.mp4", "plain.mp4", "marked")]
    assert main([str(path) for path in given]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [str(path), said] for path, said in zip(given, ("marked", "not marked", "marked"), strict=True)
    ]


def test_pictures_too_small_to_carry_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (160, 96)).save(tmp_path / "small.png")
    assert main([str(tmp_path / "small.png")]) == 1
    assert "too small to carry the watermark" in capsys.readouterr().out


def mistakes(folder: Path) -> dict[str, list[str]]:
    """Words that are mistakes, by what is said about them."""
    (folder / "text.mp4").write_text("hello")
    (folder / "cut.png").write_bytes((folder / "astronaut-plain.png").read_bytes()[:2000])
    (folder / "cut.mp4").write_bytes((folder / "astronaut-plain.mp4").read_bytes()[:600])
    (folder / "empty.jpg").touch()
    png = bytearray((folder / "astronaut-plain.png").read_bytes())
    png[png.index(b"IDAT") - 4 : png.index(b"IDAT")] = b"\0\0\0\x10"  # a chunk that ends too early
    (folder / "chunk.png").write_bytes(png)
    (folder / "nothing").mkdir()
    return {
        "nothing to look at": [],
        "there is no file or folder absent.mp4": ["absent.mp4"],
        "there is no parameter 'strict'": [str(folder / "astronaut-plain.png"), "--strict", "yes"],
        "text.mp4 can't be read as pictures or as a video": [str(folder / "text.mp4")],
        "cut.png can't be read": [str(folder / "cut.png")],
        "cut.mp4 can't be read": [str(folder / "cut.mp4")],
        "chunk.png can't be read": [str(folder / "chunk.png")],
        "empty.jpg can't be read": [str(folder / "empty.jpg")],
        "nothing holds no frames": [str(folder / "nothing")],
        "there is no file or folder /dev/zero": ["/dev/zero"],
    }


def test_mistakes_are_said_in_a_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for said, words in mistakes(folder).items():
        assert main(words) == 2, words
        error = capsys.readouterr().err
        assert said in error
        assert len(error.splitlines()) == 1


def test_the_whole_command(folder: Path) -> None:
    command = [sys.executable, "-m", "sgm.watermark", folder / "rocket-marked.mp4", folder / "rocket-plain"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert len(done.stdout.splitlines()) == 2
    command = [sys.executable, "-m", "sgm.watermark", "--help"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert "usage: python -m sgm.watermark" in done.stdout
