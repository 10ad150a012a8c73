"""The resume rule, on one real clip: which changes ask for a new one, which damages do."""

import dataclasses
import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

from sgm.__main__ import sample
from sgm.batch.items import plan_items
from sgm.batch.resume import Records, check_unchanged, claim_key
from sgm.checkpoint.finding import find_checkpoint
from sgm.config import load_config
from sgm.errors import UserError
from sgm.parameters.request import make_request
from sgm.parameters.sample_command import run
from tests.small_models import write_config

GIVEN = {"version": "svd_tiny", "num_frames": 2, "num_steps": 1, "height": 32}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with in/photo.png and, in out/, its clip."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("made")
    (folder / "in").mkdir()
    Image.linear_gradient("L").resize((50, 40)).save(folder / "in" / "photo.png")
    words = [word for name, value in GIVEN.items() for word in (f"--{name}", str(value))]
    words += ["--input_path", str(folder / "in"), "--output_folder", str(folder / "out")]
    assert run(sample, words) == 0
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of it that a test may change."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def found(folder: Path, checkpoint: Path | None = None, **changes) -> str | None:
    """The name of the record that stands for the clip of photo.png under changed parameters."""
    request = make_request({"input_path": folder / "in", "output_folder": folder / "out", **GIVEN, **changes})
    (item,) = plan_items(request, print)
    path = Records(request, find_checkpoint("svd_tiny", checkpoint)).find(item)
    return path.name if path else None


def test_the_same_again_is_done(folder):
    assert found(folder) == "photo.json"


def test_a_record_from_when_versions_had_families_counts(folder):
    path = folder / "out" / "photo.json"
    record = json.loads(path.read_text())
    del record["model"]["input"], record["model"]["ends_at_input"]
    for family, is_done in (("svd", True), ("sv3d", False)):
        record["model"]["family"] = family
        path.write_text(json.dumps(record))
        assert found(folder) == ("photo.json" if is_done else None)
        given = {"image_path": folder / "in" / "photo.png", "checkpoint": find_checkpoint("svd_tiny", None)}
        with nullcontext() if is_done else pytest.raises(UserError, match="differs in ends_at_input, input"):
            check_unchanged(path, **given, model=load_config("svd_tiny"))


@pytest.mark.parametrize(
    "same",
    [
        {"num_frames": "2"},
        {"fps_id": 6, "fps": 6},
        {"width": 32},  # what followed from the image's shape, said
        {"device": "cpu"},
        {"precision": "fp32"},
        {"fp8": "off"},
        {"formats": "mp4"},  # one of those that are there
        {"verbose": True},
    ],
)
def test_what_changes_no_clip_asks_for_none(folder, same):
    assert found(folder, **same) == "photo.json"


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 24},
        {"num_frames": 3},
        {"num_steps": 2},
        {"motion_bucket_id": 128},
        {"fps_id": 7},
        {"fps": 7},
        {"cond_aug": 0.03},
        {"decoding_t": 1},
        {"height": 64},
        {"width": 64},
        {"formats": "mp4,frames,gif"},
        {"quality": 90},
        {"precision": "bf16"},
        {"fp8": "weights"},
        {"device": "cuda"},
    ],
)
def test_changed_parameters_ask_for_a_new_clip(folder, change):
    assert found(folder, **change) is None


def test_another_image_configuration_or_weights_ask_for_a_new_clip(folder, make_image):
    model = load_config("svd_tiny")
    guidance = dataclasses.replace(model.guidance, max_scale=9.0)
    assert found(folder, config=write_config(dataclasses.replace(model, guidance=guidance), folder / "a.yaml")) is None
    assert found(folder, config=write_config(model, folder / "b.yaml")) == "photo.json", "the values count"
    weights = shutil.copy(find_checkpoint("svd_tiny").path, folder / "weights.safetensors")
    assert found(folder, checkpoint=weights) == "photo.json", "the bytes count"
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    assert found(folder, checkpoint=weights) is None
    make_image(folder / "in" / "photo.png", seed=9)
    assert found(folder) is None


@pytest.mark.parametrize("name", ["photo.mp4", "photo/0001.jpg", "photo.json", "photo"])
def test_what_is_missing_or_cut_short_is_not_done(folder, name):
    path = folder / "out" / name
    if path.is_file():
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert found(folder) is None
        path.unlink()
    else:
        shutil.rmtree(path)
    assert found(folder) is None


def test_a_clip_under_a_later_name_counts_and_so_does_one_that_was_renamed(folder):
    out = folder / "out"
    for old in (out / "photo", out / "photo.mp4", out / "photo.json"):
        old.rename(old.with_name(old.name.replace("photo", "photo-12")))
    assert found(folder) == "photo-12.json"


@pytest.mark.parametrize(
    ("section", "value"),
    [
        (None, []),
        (None, "deep"),
        ("parameters", []),
        ("files", {"/../../in/photo.png": "0"}),
        ("input", {"path": None, "sha256": None, "width": "x", "height": None}),
        ("input", {"path": None, "sha256": None, "width": float("nan"), "height": 5}),
        ("output", {"frames": 2, "width": "abc", "height": 32, "fps": 6.0, "formats": ["mp4"], "quality": 95}),
        ("output", {"frames": 2, "width": 32, "height": 32, "fps": 6.0, "formats": [{}], "quality": 95}),
        ("input", {"path": None, "sha256": None, "width": 0, "height": 0}),
        ("input", {"path": None, "sha256": None, "width": 1, "height": 1000}),
        ("output", {"frames": 2, "width": 32, "height": 32, "fps": 6.0, "formats": 3}),
        ("output", {"frames": 2, "width": 32, "height": 32, "fps": 6.0, "formats": ["mp4", "frames"]}),
    ],
)
def test_a_strange_record_stands_for_nothing(folder, section, value):
    path = folder / "out" / "photo.json"
    record = json.loads(path.read_text())
    strange = "[" * 100_000 if value == "deep" else json.dumps(record | {section: value} if section else value)
    path.write_text(strange)
    assert found(folder, height=None) is None
    assert found(folder) is None


def changed_record(folder: Path, section: str, **changes: object) -> None:
    path = folder / "out" / "photo.json"
    record = json.loads(path.read_text())
    record[section] |= changes
    path.write_text(json.dumps(record))


def test_other_weights_beside_the_base_are_another_clip(folder):
    changed_record(folder, "checkpoint", adapters=[{"path": "lora.safetensors", "sha256": "0" * 64}])
    assert found(folder) is None


def test_one_parameter_more_is_another_clip(folder):
    changed_record(folder, "parameters", interpolate=2)
    assert found(folder) is None


@pytest.mark.parametrize("odd", ["fifo", "/dev/zero", "folder", "large"])
def test_an_odd_file_in_the_place_of_a_record_blocks_nothing(folder, odd):
    out = folder / "out"
    (out / "photo.json").rename(out / "photo-1.json")
    if odd == "fifo":
        os.mkfifo(out / "photo.json")
    elif odd == "folder":
        (out / "photo.json").mkdir()
    elif odd == "large":
        (out / "photo.json").write_text(" " * 5 * 2**20)
    else:
        (out / "photo.json").symlink_to(odd)
    for name in ("photo", "photo.mp4"):
        (out / name).rename(out / name.replace("photo", "photo-1"))
    assert found(folder) == "photo-1.json"


def test_the_same_clip_has_one_key_and_others_have_others(folder):
    def key(**changes):
        request = make_request({"input_path": folder / "in", "output_folder": folder / "out", **GIVEN, **changes})
        return claim_key(plan_items(request, print)[0], request, find_checkpoint("svd_tiny"))

    assert key() == key() == key(verbose=True)
    assert key() == key(device="cuda:0") == key(device="cuda:1", precision="fp16"), "cards share a batch"
    assert len({key(), key(seed=1), key(fps=9), key(formats="gif"), key(quality=3)}) == 5


def test_the_same_clip_has_one_key_by_whatever_paths(folder):
    def key(images, checkpoint):
        request = make_request({"input_path": images, "output_folder": folder / "out", **GIVEN})
        return claim_key(plan_items(request, print)[0], request, find_checkpoint("svd_tiny", checkpoint))

    weights = find_checkpoint("svd_tiny", None).path
    (folder / "linked").symlink_to(folder / "in")
    (folder / "linked.safetensors").symlink_to(weights.absolute())
    shutil.copytree(folder / "in", folder / "copied")
    keys = {
        key(folder / images, path)
        for images in ("in", "linked", "copied")
        for path in (weights, folder / "linked.safetensors")
    }
    assert len(keys) == 1
    (folder / "copied" / "photo.png").write_bytes(b"another")
    (folder / "other.safetensors").write_bytes(b"others")
    assert len({*keys, key(folder / "copied", weights), key(folder / "in", folder / "other.safetensors")}) == 3
