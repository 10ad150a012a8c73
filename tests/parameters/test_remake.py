import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from sample import sample
from sgm.config import load_config
from sgm.errors import UserError
from sgm.parameters.sample_command import SAMPLE, run
from tests.small_models import deterministic_state

SETTINGS = [
    "--num_frames",
    "3",
    "--num_steps",
    "1",
    "--width",
    "64",
    "--seed",
    "4",
    "--fps",
    "7.5",
    "--cond_aug",
    "0.1",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with photo.png, weights.safetensors and, in out/, the clip made from them."""
    folder = tmp_path_factory.mktemp("made")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    state = deterministic_state(load_config("svd_tiny"))
    save_file({key: tensor.half().contiguous() for key, tensor in state.items()}, folder / "weights.safetensors")
    files = ["--input_path", folder / "photo.png", "--checkpoint", folder / "weights.safetensors"]
    words = [*files, *SETTINGS, "--version", "svd_tiny", "--device", "cpu", "--output_folder", folder / "out"]
    assert run(sample, [str(word) for word in words]) == 0
    return folder


def frames(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "photo").iterdir())]


def test_a_record_makes_the_same_clip_again(made, tmp_path):
    assert run(sample, ["--from_record", str(made / "out" / "photo.json"), "--output_folder", str(tmp_path)]) == 0
    assert len(frames(tmp_path)) == 3
    assert frames(tmp_path) == frames(made / "out")
    old, new = (json.loads((folder / "photo.json").read_text()) for folder in (made / "out", tmp_path))
    for section in ("parameters", "input", "checkpoint", "device", "precision", "output"):
        assert old[section] == new[section], section


def test_a_record_needs_no_other_parameter(made):
    request = SAMPLE.read(["--from_record", str(made / "out" / "photo.json")])
    assert (request.version, request.settings.fps, request.device, request.precision) == (
        "svd_tiny",
        7.5,
        "cpu",
        "fp32",
    )
    assert (request.input_path, request.checkpoint) == (made / "photo.png", made / "weights.safetensors")
    sampling = request.sampling
    assert (sampling.num_frames, sampling.num_steps, sampling.seed, sampling.cond_aug) == (3, 1, 4, 0.1)
    assert sampling.width == 64


def test_the_same_kinds_of_files_in_the_same_quality_come_with_it(made, tmp_path):
    record = json.loads((made / "out" / "photo.json").read_text())
    record["output"] |= {"formats": ["gif", "frames"], "quality": 60}
    (tmp_path / "old.json").write_text(json.dumps(record))
    assert run(sample, ["--from_record", str(tmp_path / "old.json"), "--output_folder", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["photo", "photo.gif", "photo.json"]
    assert json.loads((tmp_path / "out" / "photo.json").read_text())["output"] == record["output"]
    del record["output"]["formats"], record["output"]["quality"]  # as records were before these could be chosen
    (tmp_path / "older.json").write_text(json.dumps(record))
    assert SAMPLE.read(["--from_record", str(tmp_path / "older.json")]).formats == ("mp4", "frames")


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--seed", "4"), ("--version", "svd_tiny"), ("--precision", "fp32"), ("--fps", "3"), ("--formats", "gif")],
)
def test_nothing_that_changes_the_clip_may_be_given_beside_it(made, flag, value):
    with pytest.raises(UserError, match=f"{flag[2:]} can't be given beside from_record"):
        SAMPLE.read(["--from_record", str(made / "out" / "photo.json"), flag, value])


def test_moved_files_are_taken_and_changed_ones_refused(made, tmp_path, capsys):
    moved, changed, weights = tmp_path / "photo.png", tmp_path / "other.png", tmp_path / "other.safetensors"
    moved.write_bytes((made / "photo.png").read_bytes())
    Image.new("RGB", (96, 64)).save(changed)
    weights.write_bytes(b"other weights")
    words = ["--from_record", str(made / "out" / "photo.json"), "--output_folder", str(tmp_path / "out")]

    assert run(sample, [*words, "--input_path", str(moved)]) == 0
    assert frames(tmp_path / "out") == frames(made / "out")
    capsys.readouterr()
    assert run(sample, [*words, "--input_path", str(changed)]) == 2
    assert "other.png is not what the clip" in capsys.readouterr().err
    assert run(sample, [*words, "--checkpoint", str(weights)]) == 2
    assert "give the right one with --checkpoint" in capsys.readouterr().err
    assert run(sample, [*words, "--input_path", str(made)]) == 2
    assert "give its new place with --input_path" in capsys.readouterr().err
    assert run(sample, [*words, "--input_path", str(tmp_path / "gone.png")]) == 2
    assert "give its new place with --input_path" in capsys.readouterr().err


def test_an_image_from_memory_must_be_given(made, tmp_path):
    record = json.loads((made / "out" / "photo.json").read_text())
    record["input"] |= {"path": None, "sha256": None}
    path = tmp_path / "memory.json"
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"came from memory.*--input_path"):
        SAMPLE.read(["--from_record", str(path)])
    words = ["--from_record", path, "--input_path", made / "photo.png", "--output_folder", tmp_path]
    assert run(sample, [str(word) for word in words]) == 0
    assert frames(tmp_path) == frames(made / "out")


def test_a_changed_configuration_is_refused(made, tmp_path, capsys):
    record = json.loads((made / "out" / "photo.json").read_text())
    record["model"]["guidance"]["max_scale"] = 9.0
    path = tmp_path / "other.json"
    path.write_text(json.dumps(record))
    assert run(sample, ["--from_record", str(path), "--output_folder", str(tmp_path / "out")]) == 2
    assert "differs in guidance): give the right one with --config" in capsys.readouterr().err


@pytest.mark.parametrize(("device", "precision"), [("cuda:1", "fp16"), ("cpu", None), ("mps", None)])
def test_another_kind_of_device_computes_in_what_suits_it(made, tmp_path, device, precision):
    record = json.loads((made / "out" / "photo.json").read_text()) | {"device": "cuda", "precision": "fp16"}
    path = tmp_path / "cuda.json"
    path.write_text(json.dumps(record))
    assert SAMPLE.read(["--from_record", str(path)]).precision == "fp16"
    assert SAMPLE.read(["--from_record", str(path), "--device", device]).precision == precision


def test_a_record_of_another_program_is_refused(made, tmp_path):
    record = json.loads((made / "out" / "photo.json").read_text())
    record["parameters"]["loudness"] = 3
    path = tmp_path / "strange.json"
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="parameter 'loudness'"):
        SAMPLE.read(["--from_record", str(path)])
