"""The record: what it holds, and what it says of broken files."""

import hashlib
import json
import os
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

import sgm
from sgm.errors import UserError
from sgm.outputs.record import build_record, identity, read_record, write_record
from sgm.storage.files import describe_file


@pytest.fixture
def sources(tmp_path):
    """Keyword arguments of `build_record` with an image and a checkpoint on disk."""
    (tmp_path / "photo.png").write_bytes(b"an image")
    (tmp_path / "tiny.safetensors").write_bytes(b"weights" * 1_000_000)
    return {
        "parameters": {
            "version": "svd_tiny",
            "seed": 23,
            "input_path": tmp_path / "photo.png",
            "elevations_deg": (1, 2),
        },
        "image_file": describe_file(tmp_path / "photo.png"),
        "image_size": (640, 480),
        "checkpoint_files": describe_file(tmp_path / "tiny.safetensors"),
        "model": {"version": "svd", "guidance": {"min_scale": 1.0}, "channel_mult": (1, 2)},
        "frames_shape": (2, 128, 192, 3),
        "fps": 6.0,
        "device": "cpu",
        "device_name": None,
        "precision": "fp32",
        "fp8": "weights",
        "memory": "high",
        "threads": 3,
        "ranks": 2,
        "clips_at_once": 1,
        "stages": {"sampling": {"seconds": 1.5, "peak_memory_bytes": 1000, "memory": "resident"}},
    }


def test_everything_is_there_and_survives_the_file(tmp_path, sources):
    record = build_record(**sources)
    write_record(tmp_path / "clip.json", record, tmp_path)
    assert read_record(tmp_path / "clip.json") == record

    assert record["program"] == {"name": "sgm", "version": sgm.__version__}
    assert record["parameters"] == {
        "version": "svd_tiny",
        "seed": 23,
        "input_path": str(tmp_path / "photo.png"),
        "elevations_deg": [1, 2],
    }
    digest = hashlib.sha256(b"an image").hexdigest()
    assert record["input"] == {"path": str(tmp_path / "photo.png"), "sha256": digest, "width": 640, "height": 480}
    digest = hashlib.sha256(b"weights" * 1_000_000).hexdigest()
    assert record["checkpoint"] == {"path": str(tmp_path / "tiny.safetensors"), "sha256": digest}
    assert record["model"] == {"version": "svd", "guidance": {"min_scale": 1.0}, "channel_mult": [1, 2]}
    assert record["output"] == {"frames": 2, "width": 192, "height": 128, "fps": 6.0}
    assert record["stages"] == sources["stages"]
    assert (record["device"], record["device_name"]) == ("cpu", None)
    assert (record["precision"], record["fp8"]) == ("fp32", "weights")
    assert (record["memory"], record["threads"], record["ranks"]) == ("high", 3, 2)
    assert record["packages"]["numpy"] == np.__version__
    assert record["packages"]["python"] == sys.version.split()[0]
    assert "camera" not in record
    age = datetime.now(timezone.utc) - datetime.fromisoformat(record["created"])
    assert timedelta(0) <= age < timedelta(minutes=1)


def test_paths_are_absolute(sources, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert describe_file(Path("photo.png"))["path"] == str(tmp_path / "photo.png")


def test_an_image_from_memory_has_a_size_only(sources):
    record = build_record(**sources | {"image_file": describe_file(None)})
    assert record["input"] == {"path": None, "sha256": None, "width": 640, "height": 480}


def test_camera_of_an_orbit(sources):
    record = build_record(**sources, elevations_deg=(10.0, 12.5), azimuths_deg=(180.0, 0.0))
    assert record["camera"] == {"elevations_deg": [10.0, 12.5], "azimuths_deg": [180.0, 0.0]}
    with pytest.raises(AssertionError, match="per view"):
        build_record(**sources, elevations_deg=(10.0,), azimuths_deg=(180.0, 0.0))


def test_only_what_json_can_hold(sources):
    with pytest.raises(TypeError, match="can't be part of a record"):
        build_record(**sources | {"parameters": {"image": object()}})
    with pytest.raises(ValueError, match="JSON compliant"):
        build_record(**sources | {"parameters": {"cond_aug": float("nan")}})


@pytest.mark.parametrize(
    ("lost", "told"),
    [(("parameters",), "parameters"), (("input", "sha256"), "input.sha256"), (("output",), "output")],
)
def test_reading_names_what_is_missing(tmp_path, sources, lost, told):
    record = build_record(**sources)
    holder = record if len(lost) == 1 else record[lost[0]]
    del holder[lost[-1]]
    write_record(tmp_path / "clip.json", record, tmp_path)
    with pytest.raises(UserError, match=rf"clip\.json .* has no {told};"):
        read_record(tmp_path / "clip.json")


@pytest.mark.parametrize("content", [b"[1, 2]", b'{"parameters": 3}'])
def test_reading_other_json(tmp_path, content):
    (tmp_path / "clip.json").write_bytes(content)
    with pytest.raises(UserError, match="has no program, parameters, input"):
        read_record(tmp_path / "clip.json")


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff\xe0", b'{"program": '])
def test_reading_what_is_no_json(tmp_path, content):
    (tmp_path / "clip.json").write_bytes(content)
    with pytest.raises(UserError, match="isn't JSON"):
        read_record(tmp_path / "clip.json")


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"absent\.json: No such file"):
        read_record(tmp_path / "absent.json")
    with pytest.raises(UserError, match="Is a directory"):
        read_record(tmp_path)


def test_record_is_plain_json_for_people(tmp_path, sources):
    write_record(tmp_path / "clip.json", build_record(**sources), tmp_path)
    text = (tmp_path / "clip.json").read_text()
    assert text.count("\n") > 20, "one value a line"
    assert json.loads(text)["parameters"]["seed"] == 23


def written(tmp_path, sources, folder="outputs/svd"):
    """What the record's file says of image, weights and configuration, with the folder it is in."""
    folder = tmp_path / folder
    folder.mkdir(parents=True)
    record = build_record(**sources)
    write_record(folder / "clip.json", record, folder)
    assert read_record(folder / "clip.json") == record
    raw = json.loads((folder / "clip.json").read_text())
    return raw["input"]["path"], raw["checkpoint"]["path"], raw["parameters"].get("config")


def test_paths_are_relative_within_the_current_folder(tmp_path, sources, monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.chdir(tmp_path)
    config = {"config": tmp_path / "outputs" / "svd" / "own.yaml"}
    assert written(tmp_path, sources | {"parameters": config}) == (
        "../../photo.png",
        "../../tiny.safetensors",
        "./own.yaml",
    )


def test_paths_are_relative_within_the_folder_that_holds_the_outputs(tmp_path, sources, monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.chdir("/")
    assert written(tmp_path, sources, "svd")[:2] == ("../photo.png", "../tiny.safetensors")


def test_paths_elsewhere_begin_at_home_or_are_absolute(tmp_path, sources, monkeypatch):
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert written(tmp_path, sources)[:2] == ("~/photo.png", "~/tiny.safetensors")
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "user"))
    monkeypatch.chdir(tmp_path)  # relative paths from here would name the user
    sources = sources | {"checkpoint_files": describe_file(tmp_path / "tiny.safetensors")}
    assert written(tmp_path, sources, "home/user/out/svd")[:2] == tuple(
        str(tmp_path / name) for name in ("photo.png", "tiny.safetensors")
    )


def test_paths_hold_though_the_output_folder_is_a_link(tmp_path, sources, monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "outputs").symlink_to(tmp_path / "disk" / "deep")
    monkeypatch.chdir(tmp_path)
    assert written(tmp_path, sources, "work/outputs/svd")[0] == "../../../photo.png"
    assert (tmp_path / "disk" / "deep" / "svd" / "../../../photo.png").is_file()


def test_a_clip_that_has_lost_its_current_folder_is_recorded_all_the_same(tmp_path, sources, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert written(tmp_path, sources, "svd")[0] == "../photo.png"


def test_an_interpolators_path_moves_with_the_others(tmp_path, sources):
    described = {"release": "ours_t", **describe_file(tmp_path / "photo.png")}
    sources["checkpoint_files"] |= {"interpolator": described}
    record = build_record(**sources)
    (tmp_path / "out").mkdir()
    write_record(tmp_path / "out" / "clip.json", record, tmp_path / "out")
    assert record["checkpoint"]["interpolator"] == described, "what is in memory stays as it was"
    written = json.loads((tmp_path / "out" / "clip.json").read_text())["checkpoint"]["interpolator"]
    assert written == described | {"path": "../photo.png"}
    assert read_record(tmp_path / "out" / "clip.json")["checkpoint"]["interpolator"] == described


@pytest.mark.parametrize(
    ("section", "value", "told"),
    [
        ("output", {"frames": 2, "width": "abc", "height": 4, "fps": 6.0}, "its output.width can't be 'abc'"),
        ("output", {"frames": 2, "width": 4, "height": 4, "fps": 6.0, "formats": [{}]}, "its output.formats can't be"),
        ("output", {"frames": True, "width": 4, "height": 4, "fps": 6.0}, "its output.frames can't be True"),
        ("parameters", {"elevations_deg": ["1"]}, "its parameters can't be"),
        ("parameters", {"config": "x" * 300}, "its config can't be"),
        ("files", {".mp4": 3}, "its files can't be"),
        ("adapters", [{"sha256": "0" * 64}], "'adapters' is unknown to this version"),
        ("checkpoint", {"path": "a", "sha256": "0" * 64, "adapters": []}, "checkpoint.'adapters' is unknown"),
        ("checkpoint", {"path": None, "sha256": "0" * 64}, "its checkpoint has a path without sha256, or sha256"),
        *(
            (
                "checkpoint",
                {"path": "a", "sha256": "0" * 64, "interpolator": interpolator},
                "its checkpoint.interpolator can't be",
            )
            for interpolator in (
                None,
                "ours.pkl",
                {"path": "a", "sha256": "0" * 64},
                {"release": "ours", "path": None, "sha256": None},
                {"release": "ours", "path": "a", "sha256": "0"},
                {"release": ["ours"], "path": "a", "sha256": "0" * 64},
                {"release": "ours", "path": "a", "sha256": "0" * 64, "more": 1},
            )
        ),
    ],
)
def test_reading_names_what_is_odd(tmp_path, sources, section, value, told):
    write_record(tmp_path / "clip.json", build_record(**sources), tmp_path)
    record = json.loads((tmp_path / "clip.json").read_text()) | {section: value}
    (tmp_path / "clip.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=told):
        read_record(tmp_path / "clip.json")


def test_reading_what_is_too_large_or_never_ends(tmp_path):
    (tmp_path / "clip.json").write_text("[" + " " * 5 * 2**20 + "]")
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name, told in (("clip", "Larger than"), ("fifo", "Not a regular file"), ("zero", "Not a regular file")):
        with pytest.raises(UserError, match=told):
            read_record(tmp_path / f"{name}.json")


def test_places_are_no_part_of_what_is_compared():
    here = {"path": "a", "sha256": "1", "adapters": [{"path": "b", "sha256": "2", "strength": 0.5}]}
    there = {
        "path": "x",
        "sha256": "1",
        "repository": "o/n",
        "revision": "c",
        "adapters": [{"path": "y", "sha256": "2"}],
    }
    assert identity(here) == {"sha256": "1", "adapters": [{"sha256": "2", "strength": 0.5}]}
    assert identity(here) != identity(there)
    there["adapters"][0]["strength"] = 0.5
    assert identity(here) == identity(there)
