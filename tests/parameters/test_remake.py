import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from sgm.__main__ import sample
from sgm.config import load_config
from sgm.errors import UserError
from sgm.outputs.record import read_record
from sgm.parameters.sample_command import SAMPLE, run
from tests.small_models import deterministic_state, write_config

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


@pytest.fixture
def changed(made):
    """A function that writes a record beside the clip's own with a few sections, or keys in them, changed."""
    paths = []

    def write(name: str = "changed", **sections: object) -> Path:
        record = json.loads((made / "out" / "photo.json").read_text())
        for section, value in sections.items():
            record[section] = {**record[section], **value} if isinstance(value, dict) else value
        paths.append(made / "out" / f"{name}.json")
        paths[-1].write_text(json.dumps(record))
        return paths[-1]

    yield write
    for path in paths:
        path.unlink(missing_ok=True)


def frames(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "photo").iterdir())]


def test_a_record_makes_the_same_clip_again(made, tmp_path):
    assert run(sample, ["--from_record", str(made / "out" / "photo.json"), "--output_folder", str(tmp_path)]) == 0
    assert len(frames(tmp_path)) == 3
    assert frames(tmp_path) == frames(made / "out")
    old, new = (read_record(folder / "photo.json") for folder in (made / "out", tmp_path))
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


def test_the_same_kinds_of_files_in_the_same_quality_come_with_it(made, changed, tmp_path):
    path = changed(output={"formats": ["gif", "frames"], "quality": 60})
    assert run(sample, ["--from_record", str(path), "--output_folder", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["photo", "photo.gif", "photo.json"]
    assert read_record(tmp_path / "out" / "photo.json")["output"] == read_record(path)["output"]
    output = read_record(path)["output"]
    del output["formats"], output["quality"]  # as records were before these could be chosen
    record = json.loads(path.read_text()) | {"output": output}
    path.write_text(json.dumps(record))
    assert SAMPLE.read(["--from_record", str(path)]).formats == ("mp4", "frames")


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--seed", "4"), ("--version", "svd_tiny"), ("--precision", "fp32"), ("--fps", "3"), ("--formats", "gif")],
)
def test_nothing_that_changes_the_clip_may_be_given_beside_it(made, flag, value):
    with pytest.raises(UserError, match=f"{flag[2:]} can't be given with from_record"):
        SAMPLE.read(["--from_record", str(made / "out" / "photo.json"), flag, value])


def test_moved_files_are_taken_and_changed_ones_refused(made, tmp_path, capsys):
    moved, other, weights = tmp_path / "photo.png", tmp_path / "other.png", tmp_path / "other.safetensors"
    moved.write_bytes((made / "photo.png").read_bytes())
    Image.new("RGB", (96, 64)).save(other)
    weights.write_bytes(b"other weights")
    words = ["--from_record", str(made / "out" / "photo.json"), "--output_folder", str(tmp_path / "out")]

    assert run(sample, [*words, "--input_path", str(moved)]) == 0
    assert frames(tmp_path / "out") == frames(made / "out")
    capsys.readouterr()
    assert run(sample, [*words, "--input_path", str(other)]) == 2
    assert "other.png' is not what the clip" in capsys.readouterr().err
    assert run(sample, [*words, "--checkpoint", str(weights)]) == 2
    assert "give the right one with --checkpoint" in capsys.readouterr().err
    assert run(sample, [*words, "--input_path", str(made)]) == 2
    assert "give its new place with --input_path" in capsys.readouterr().err
    assert run(sample, [*words, "--input_path", str(tmp_path / "gone.png")]) == 2
    assert "give its new place with --input_path" in capsys.readouterr().err


def test_an_image_from_memory_must_be_given(made, changed, tmp_path):
    path = changed(input={"path": None, "sha256": None})
    with pytest.raises(UserError, match=r"came from memory.*--input_path"):
        SAMPLE.read(["--from_record", str(path)])
    words = ["--from_record", path, "--input_path", made / "photo.png", "--output_folder", tmp_path]
    assert run(sample, [str(word) for word in words]) == 0
    assert frames(tmp_path) == frames(made / "out")


def test_a_changed_configuration_is_refused(changed, tmp_path, capsys):
    path = changed(model={"guidance": {"shape": "linear", "min_scale": 1.0, "max_scale": 9.0}})
    assert run(sample, ["--from_record", str(path), "--output_folder", str(tmp_path / "out")]) == 2
    assert "differs in guidance): give the right one with --config" in capsys.readouterr().err


@pytest.mark.parametrize(("device", "precision"), [("cuda:1", "fp16"), ("cpu", None), ("mps", None)])
def test_another_kind_of_device_computes_in_what_suits_it(changed, device, precision):
    path = changed(device="cuda", precision="fp16")
    assert SAMPLE.read(["--from_record", str(path)]).precision == "fp16"
    assert SAMPLE.read(["--from_record", str(path), "--device", device]).precision == precision


@pytest.mark.parametrize(
    "foreign",
    [
        {"loudness": 3},
        {"output_folder": "/tmp/planted"},
        {"download": True},
        {"engine": "ray"},
        {"verbose": True},
        {"checkpoint": "other.safetensors"},
        {"from_record": "other.json"},
        {"x" * 5000: 1},
        {"a\nb": 1},
    ],
)
def test_a_record_sets_nothing_but_how_the_clip_is_made(changed, foreign):
    path = changed(parameters=foreign)
    with pytest.raises(UserError, match=rf"changed\.json, there is a parameter '{next(iter(foreign))[:1]}") as refused:
        SAMPLE.read(["--from_record", str(path), "--output_folder", "elsewhere"])
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    "content", ["SECRET: hunter2", "SECRET", "- SECRET", "family: SECRET", "base: SECRET", "[SECRET"]
)
def test_a_recorded_configuration_may_be_anybodys_file(changed, made, content, capsys):
    (made / "private.yaml").write_text(content)
    path = changed(parameters={"config": "../private.yaml"})
    assert run(sample, ["--from_record", str(path), "--verbose"]) == 2
    said = capsys.readouterr()
    assert "can't be read as one: give it with --config" in said.err
    assert "SECRET" not in said.out + said.err


def test_a_recorded_configuration_can_be_given_anew(changed, made):
    path = changed(parameters={"config": "../gone.yaml"})
    with pytest.raises(UserError, match="give it with --config"):
        SAMPLE.read(["--from_record", str(path)])
    config = write_config(load_config("svd_tiny"), made / "moved.yaml")
    assert SAMPLE.read(["--from_record", str(path), "--config", str(config)]).config == config


def test_without_its_hash_an_image_is_not_taken(changed, capsys):
    for given in ({"sha256": None}, {"path": None}):
        assert run(sample, ["--from_record", str(changed(input=given))]) == 2
        assert "its input has a path without sha256, or sha256 without a path" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address", [{"repository": "../../etc", "revision": "a" * 40}, {"repository": "a/b", "revision": "main"}]
)
def test_a_repository_is_recorded_with_its_commit(changed, address):
    with pytest.raises(UserError, match="which aren't a repository and a commit"):
        SAMPLE.read(["--from_record", str(changed(checkpoint=address))])


def test_a_moved_folder_makes_its_clips_again_from_anywhere(made, tmp_path, monkeypatch):
    assert str(made) not in (made / "out" / "photo.json").read_text()
    moved = shutil.copytree(made, tmp_path / "moved")
    made.rename(made.with_name("hidden"))
    try:
        for folder, record in (
            (moved / "out", "photo.json"),
            (moved, "out/photo.json"),
            (tmp_path, "moved/out/photo.json"),
        ):
            monkeypatch.chdir(folder)
            request = SAMPLE.read(["--from_record", record])
            assert (request.input_path, request.checkpoint) == (moved / "photo.png", moved / "weights.safetensors")
        assert run(sample, ["--from_record", "moved/out/photo.json", "--output_folder", "again"]) == 0
    finally:
        made.with_name("hidden").rename(made)
    assert frames(tmp_path / "again") == frames(made / "out")


def test_records_with_absolute_paths_are_read_as_ever(made, changed, monkeypatch):
    path = changed(input={"path": str(made / "photo.png")}, checkpoint={"path": str(made / "weights.safetensors")})
    monkeypatch.chdir("/")
    request = SAMPLE.read(["--from_record", str(path)])
    assert (request.input_path, request.checkpoint) == (made / "photo.png", made / "weights.safetensors")


def places(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """The path of every value in a record, of containers too."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


WRONG = [None, True, -1, 0, 10**19, 1e300, "", "x", "x" * 5000, "\0", "\ud800", "a\nb", "/dev/zero", [], [[1]], {}]
WRONG += [
    {"x" * 5000: {"y": 1}},
    [{}],
    "RAW NaN",
    "RAW Infinity",
    "RAW 1e999",
    "RAW " + "9" * 5000,
    "RAW " + "[" * 5000,
]


def test_whatever_is_changed_in_a_record_ends_in_a_line(made, tmp_path, monkeypatch, capsys):
    """A few hundred mutations: refused in a line, or a clip's record as before; nothing is written, nothing is slow."""

    def reach(*_, **__):
        raise UserError("reached the model")

    monkeypatch.setattr("sgm.generation.pipeline.load", reach)
    whole = json.loads((made / "out" / "photo.json").read_text())
    random, path = Random(7), made / "out" / "mutated.json"
    for place in random.choices([place for place in places(whole) if place], k=300):
        record = json.loads(json.dumps(whole))
        holder = record
        for key in place[:-1]:
            holder = holder[key]
        wrong = random.choice(WRONG)
        what = random.random()
        if what < 0.1:
            del holder[place[-1]]
        elif what < 0.2 and isinstance(holder, dict):
            holder[f"new{what}"] = wrong
        else:
            holder[place[-1]] = wrong
        path.write_text(re.sub(r'"RAW ([^"]*)"', r"\1", json.dumps(record)))
        code = run(sample, ["--from_record", str(path), "--output_folder", str(tmp_path / "out")])
        said = capsys.readouterr()
        assert (code, said.out) == (2, ""), (place, wrong)
        (line,) = [line for line in said.err.splitlines() if not line.startswith("warning: ")]
        assert line.startswith("error: "), (place, wrong)
        assert len(line) < 1000, (place, wrong)
    path.unlink()
    assert not (tmp_path / "out").is_dir() or list((tmp_path / "out").iterdir()) == []
