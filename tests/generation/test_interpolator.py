"""`--interpolator ema_vfi` in whole runs: its frames, its record, runs that go on, replays, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgm.__main__ import sample
from sgm.errors import UserError
from sgm.generation.pipeline import Pipeline, load
from sgm.outputs.record import read_record
from sgm.parameters.sample_command import run
from sgm.progress import Progress
from sgm.storage.files import file_sha256
from tests.small_interpolators import write_interpolator

CLIP = {"num_frames": 3, "num_steps": 1, "width": 64, "enhance": "none"}
SMOOTH = {"out_fps": 12, "interpolator": "ema_vfi"}


def words(**given: object) -> list[str]:
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photo.png and ours_small_t.pkl, and in out/ a clip smoothed with it."""
    folder = tmp_path_factory.mktemp("smoothed")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    write_interpolator(folder / "ours_small_t.pkl")
    given = {"interpolator_weights": folder / "ours_small_t.pkl", "output_folder": folder / "out", "formats": "frames"}
    assert (
        run(sample, [str(folder / "photo.png"), *words(version="svd_tiny", device="cpu", **CLIP, **SMOOTH, **given)])
        == 0
    )
    return folder


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Pipeline:
    return load("svd_tiny", interpolator=folder / "ours_small_t.pkl", device="cpu", progress=Progress(quiet=True))


def pictures(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "photo").iterdir())]


def test_the_clips_own_frames_stay_and_the_network_makes_the_others(folder, pipeline):
    clips = {
        name: pipeline(folder / "photo.png", **CLIP, **given).frames
        for name, given in {"plain": {}, "flow": {"out_fps": 12}, "network": SMOOTH}.items()
    }
    assert clips["network"].shape == clips["flow"].shape == (6, *clips["plain"].shape[1:])
    assert np.array_equal(clips["network"][::2], clips["plain"])
    assert not np.array_equal(clips["network"][[1, 3]], clips["flow"][[1, 3]])
    first, second = clips["plain"][:2]
    made = pipeline.interpolator.between(first, second).frame_at(0.5)
    assert np.array_equal(clips["network"][1], made), "too small for a watermark"


def test_the_record_tells_of_the_weights_where_they_were_used(folder, pipeline):
    path = folder / "ours_small_t.pkl"
    described = {"release": "ours_small_t", "path": str(path), "sha256": file_sha256(path)}
    record = read_record(folder / "out" / "photo.json")
    assert record["checkpoint"]["interpolator"] == described
    assert record["parameters"]["interpolator"] == "ema_vfi"
    assert "interpolating" in record["stages"]
    assert json.loads((folder / "out" / "photo.json").read_text())["checkpoint"]["interpolator"]["path"].startswith(
        "../"
    )
    assert pipeline(folder / "photo.png", **CLIP, **SMOOTH).record["checkpoint"]["interpolator"] == described
    assert "interpolator" not in pipeline(folder / "photo.png", **CLIP, out_fps=12).record["checkpoint"]


def test_a_replay_is_the_same_to_the_byte_and_needs_the_same_weights(folder, tmp_path, capsys):
    again = ["--from_record", str(folder / "out" / "photo.json"), "--output_folder"]
    assert run(sample, [*again, str(tmp_path / "out")]) == 0
    assert pictures(tmp_path / "out") == pictures(folder / "out")
    assert len(pictures(folder / "out")) == 6

    moved, other = tmp_path / "moved" / "ours_small_t.pkl", tmp_path / "other" / "ours_small_t.pkl"
    for path in (moved, other):
        path.parent.mkdir()
        shutil.copy(folder / "ours_small_t.pkl", path)
    with other.open("ab") as file:
        file.write(b"\0")
    assert run(sample, [*again, str(tmp_path / "moved"), "--interpolator_weights", str(moved)]) == 0
    assert pictures(tmp_path / "moved") == pictures(folder / "out")
    capsys.readouterr()
    assert run(sample, [*again, str(tmp_path / "other"), "--interpolator_weights", str(other)]) == 2
    assert "give the right one with --interpolator_weights" in capsys.readouterr().err
    renamed = shutil.copy(folder / "ours_small_t.pkl", tmp_path / "ours_small.pkl")
    assert run(sample, [*again, str(tmp_path / "other"), "--interpolator_weights", str(renamed)]) == 2
    assert "give the right one with --interpolator_weights" in capsys.readouterr().err, "the other way to make frames"


def test_a_batch_goes_on_and_each_clip_has_its_own_weights(folder, tmp_path, capsys):
    (tmp_path / "list.jsonl").write_text(
        "\n".join(
            json.dumps({"input_path": str(folder / "photo.png"), "output_name": name, **given})
            for name, given in {"smooth": SMOOTH, "plain": {}}.items()
        )
    )

    def make(*more: str) -> tuple[int, str]:
        given = {"version": "svd_tiny", "device": "cpu", "formats": "frames", "output_folder": tmp_path / "out", **CLIP}
        code = run(sample, [str(tmp_path / "list.jsonl"), *words(**given), *more])
        return code, capsys.readouterr().err

    code, said = make()
    assert code == 2
    assert "interpolator ema_vfi needs weights" in said
    assert not (tmp_path / "out").exists()
    weights = tmp_path / "ours_small_t.pkl"
    weights.symlink_to(folder / "ours_small_t.pkl")
    assert make("--interpolator_weights", str(weights))[0] == 0
    records = {name: read_record(tmp_path / "out" / f"{name}.json") for name in ("smooth", "plain")}
    assert ["interpolator" in record["checkpoint"] for record in records.values()] == [True, False]

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("[ps]*.json")}
    assert make("--interpolator_weights", str(folder / "ours_small_t.pkl"))[0] == 0, "the same, wherever it is"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("[ps]*.json")} == before
    weights.unlink()
    shutil.copy(folder / "ours_small_t.pkl", weights)
    with weights.open("ab") as file:
        file.write(b"\0")
    assert make("--interpolator_weights", str(weights))[0] == 0
    made = sorted(path.name for path in (tmp_path / "out").glob("[ps]*.json") if path not in before)
    assert made == ["smooth-1.json"], "other weights make another clip, of the one that uses them"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"interpolator": "ema_vfi"}, "interpolator ema_vfi is for out_fps: add that, or omit interpolator"),
        ({"interpolator": "ema", "out_fps": 12}, "interpolator can't be 'ema' (did you mean ema_vfi?)"),
        ({"out_fps": 12, "interpolator_weights": "ours.pkl"}, "interpolator_weights is for interpolator ema_vfi"),
        ({**SMOOTH, "interpolator_weights": "gone/ours.pkl"}, "no file gone/ours.pkl"),
        ({**SMOOTH, "interpolator_weights": "weights.pt"}, "its name must tell what it was trained for"),
        (SMOOTH, "get ours_t.pkl, for any out_fps"),
    ],
)
def test_what_is_missing_or_too_much_is_said_in_a_line(folder, tmp_path, capsys, given, told):
    words_given = words(version="svd_tiny", output_folder=tmp_path / "out", **given)
    assert run(sample, [str(folder / "photo.png"), *words_given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not (tmp_path / "out").exists()


def test_a_bad_file_ends_in_a_line(folder, tmp_path, capsys):
    (tmp_path / "ours_t.pkl").write_bytes(b"no pickle")
    given = {"output_folder": tmp_path / "out", "interpolator_weights": tmp_path / "ours_t.pkl"}
    assert run(sample, [str(folder / "photo.png"), *words(version="svd_tiny", **SMOOTH, **CLIP, **given)]) == 2
    assert "ours_t.pkl is not a readable checkpoint" in capsys.readouterr().err


def test_from_python_the_weights_are_loaded_with_the_version(folder):
    without = load("svd_tiny", device="cpu", progress=Progress(quiet=True))
    with pytest.raises(UserError, match="load the version with interpolator=FILE"):
        without(folder / "photo.png", **CLIP, **SMOOTH)
