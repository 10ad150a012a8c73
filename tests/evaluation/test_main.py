"""The command as a whole, on random weights."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sgm.config import load_config
from sgm.errors import UserError
from sgm.evaluation.__main__ import COMMAND, EvaluationRequest, main
from sgm.models.video_model import VideoModel
from sgm.outputs.provenance import Provenance
from sgm.outputs.video import write_video
from sgm.storage.files import file_sha256
from sgm.training.__main__ import save_weights

ROOT = Path(__file__).parents[2]


def random_checkpoint(version: str, folder: Path) -> Path:
    torch.manual_seed(0)
    path = folder / "random.safetensors"
    save_weights(VideoModel(load_config(version)), path)
    return path


def test_measures_sv3d_tiny_from_the_command_line(tmp_path):
    checkpoint, output = random_checkpoint("sv3d_tiny", tmp_path), tmp_path / "scores" / "sv3d_tiny.json"
    words = ["sv3d_tiny", "--checkpoint", checkpoint, "--output", output, "--num_objects", "1", "--num_steps", "1"]
    command = [sys.executable, "-m", "sgm.evaluation", *words, "--device=cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| repeat the input |" in done.stdout
    assert done.stderr == ""
    report = json.loads(output.read_text())
    assert report["checkpoint"]["sha256"] == file_sha256(checkpoint)
    assert report["num_steps"] == 1
    scores = report["scores"]
    assert 0 < scores["generated"]["psnr_db"] < scores["repeat the input"]["psnr_db"]  # nothing is trained
    assert scores["generated"]["views_right"] >= 1 / 21  # the given view
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.slow
def test_measures_and_draws_svd_tiny(tmp_path, capsys):
    checkpoint, output = random_checkpoint("svd_tiny", tmp_path), tmp_path / "svd_tiny.json"
    words = ["svd_tiny", f"--checkpoint={checkpoint}", f"--output={output}", "--num_steps=1", "--device=cpu"]
    # One picture alone may fool the flow estimator between two neighbouring strengths: the true clips gave 0.905.
    assert main([*words, "--num_pictures=3"]) == 0
    scores = json.loads(output.read_text())["scores"]
    assert scores["true clips"]["bucket_correlation"] > 0.95
    assert scores["true clips"]["fps_correlation"] == pytest.approx(-1)
    assert scores["true clips"]["flicker_levels"] < scores["generated"]["flicker_levels"]
    output.unlink()
    capsys.readouterr()
    assert main([*words, f"--picture={tmp_path / 'clips.webp'}"]) == 0
    assert (tmp_path / "clips.webp").stat().st_size > 10_000
    assert not output.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give one of svd_tiny, sv3d_tiny"),
        (["svd_xt"], "did you mean svd_tiny"),
        (["svd_tiny", "--num_object", "3"], "did you mean num_objects"),
        (["svd_tiny", "output"], "'output' belongs to no parameter"),
        (["svd_tiny", "-", "output"], "'-' belongs to no parameter"),
        (["svd_tiny", "--num_pictures", "0"], "from 1 to"),
        (["svd_tiny", "--picture", "clip.mp4"], ".webp or .gif"),
        (["svd_tiny", "--checkpoint", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words, told, capsys):
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert told in printed.err
    assert printed.err.count("\n") == 1


def test_words_become_a_request():
    request = COMMAND.read(["sv3d_tiny", "--num_objects=5", "--picture", "a.gif"])
    assert request == EvaluationRequest("sv3d_tiny", num_objects=5, picture=Path("a.gif"))
    assert request.output == Path("outputs/evaluation/sv3d_tiny.json")
    with pytest.raises(UserError, match="device"):
        EvaluationRequest("sv3d_tiny", device="gpu")


def test_help_names_every_parameter():
    for name in EvaluationRequest.__dataclass_fields__:
        assert f"--{name} " in COMMAND.help_text()


def test_measures_interpolation_on_the_videos_of_a_folder(tmp_path, capsys):
    still = np.full((48, 64, 3), 90, np.uint8)
    for name, step in (("moving", 4), ("still", 0)):
        frames = [np.roll(pattern(), step * number, axis=1) for number in range(5)] if step else [still] * 5
        write_video(tmp_path / f"{name}.mp4", frames, 8, 95, Provenance("sgm", "svd"))
    (tmp_path / "notes.txt").touch()
    assert main(["interpolation", str(tmp_path), "--output", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    moving, unmoved = scores["videos"]
    assert (moving["video"], unmoved["video"]) == ("moving.mp4", "still.mp4")
    assert moving["frames_made"] == 2
    assert moving["psnr_db"]["flow"] > moving["psnr_db"]["average"] + 3
    assert unmoved["psnr_db"]["flow"] == unmoved["psnr_db"]["repeat"] == 100
    assert "| moving.mp4 " in capsys.readouterr().out


def pattern() -> np.ndarray:
    rows, columns = np.mgrid[:48, :64]
    waves = np.sin(columns / 64 * 2 * np.pi * 3) * np.sin(rows / 7) + np.sin(columns / 64 * 2 * np.pi + rows / 5)
    return np.stack([(127 + 50 * waves).astype(np.uint8)] * 3, axis=2)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["interpolation"], "videos is missing"),
        (["interpolation", "photo.png"], "photo.png is no video"),
        (["svd_tiny", "--enhance", "details", "--losses"], "enhance measures something else than losses"),
        (["sv3d_tiny", "--enhance", "details"], "sv3d_tiny can't use enhance details"),
    ],
)
def test_what_cannot_be_measured_is_told(words, complaint, capsys):
    assert main(words) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.slow
def test_details_keep_what_the_documentation_says(tmp_path):
    output = tmp_path / "scores.json"
    assert main(["svd_tiny", "--enhance", "details", "--output", str(output)]) == 0
    scores = json.loads(output.read_text())["scores"]
    for kind, gain in (("camera motion", 8.0), ("moving subjects", 1.0)):
        enhanced, bicubic = scores[f"enhanced, {kind}"], scores[f"bicubic, {kind}"]
        assert enhanced["psnr_db"] > bicubic["psnr_db"] + gain
        assert enhanced["worst_gain_db"] > 0
        assert enhanced["flicker_levels"] < scores[f"true clips, {kind}"]["flicker_levels"] + 0.3
