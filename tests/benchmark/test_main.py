"""The benchmark as a command, small enough for every check."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sgm.benchmark.__main__ import main

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = ["--frames", "2", "--steps", "2", "--size", "64x64", "--warmups", "1", "--repeats", "2"]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sgm.benchmark", *words, "--device", "cpu", "--output", str(folder / "found.json")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_presets_and_memory_modes_of_a_bundled_version(tmp_path: Path) -> None:
    done = run(tmp_path, "svd_tiny", *TINY, "--preset", "exact,fast", "--memory", "high,low")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    names = ["exact, high", "exact, low", "fast, high", "fast, low"]
    assert [result["name"] for result in found["results"]] == names
    assert all(name in done.stdout for name in names)
    assert all(f"measuring {name}" in done.stderr for name in names), "without a terminal too, it says where it is"
    assert not found["random_weights"]
    exact, sparing, fast, _ = found["results"]
    assert exact["psnr_db"] > 90
    assert sparing["psnr_db"] > 90
    assert fast["psnr_db"] < 60
    for result in found["results"]:
        seconds = result["seconds"]
        assert 0 < seconds["sampling"] + seconds["decoding"] <= seconds["whole clip"] * 1.05
        assert 0 < result["share_of_ceiling"] < 1.5
        assert result["peak_memory_bytes"]
    with Image.open(tmp_path / "found.png") as chart:
        assert len(set(chart.convert("RGB").get_flattened_data())) > 10


@pytest.mark.slow
@pytest.mark.parametrize("words", [["svd_tiny"], ["svd", "--model_channels", "64"]])
def test_not_slower_than_diffusers(tmp_path: Path, words: list[str]) -> None:
    """On the same device, with the same weights, in turn; and with the same result."""
    pytest.importorskip("transformers")
    size = ["--frames", "8", "--steps", "4", "--size", "128x128", "--repeats", "9"]
    done = run(tmp_path, *words, *size, "--against", "diffusers")
    assert done.returncode == 0, done.stderr
    (rival,) = json.loads((tmp_path / "found.json").read_text())["rivals"]
    assert rival["step_difference"] < 1e-3  # diffusers' norms have another epsilon
    assert rival["step_ratio"] >= 1
    assert rival["clip_ratio"] >= 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sdv"], "did you mean svd"),
        (["svd_tiny", "--preset", "exact,slow"], "give some of exact, balanced, fast"),
        (["svd_tiny", "--memory", "auto"], "give some of high, low, lowest"),
        (["svd_tiny", "--repeats", "0"], "from 1 to 100"),
        (["sv3d_tiny", "--against", "diffusers"], "diffusers has no pipeline for sv3d_tiny"),
        (["svd_tiny", "--output", "found.txt"], "ends in .json"),
        (["svd_tiny", "--size", "130x128"], "130"),
        (["svd_tiny", "--size", "128"], "give WIDTHxHEIGHT, both from 8 to 8192"),
        (["svd_tiny", "--size", "64x4"], "give WIDTHxHEIGHT, both from 8 to 8192"),
        (["svd_tiny", "--cap_gb", "6", "--device", "cpu"], "cap_gb limits graphics memory, which cpu does not have"),
    ],
)
def test_mistakes_are_reported_in_a_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
