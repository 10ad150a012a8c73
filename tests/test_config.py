import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from sgm.config import load_config
from sgm.errors import UserError
from sgm.storage.files import config_folder
from tests.small_models import miniature_config, write_config

RELEASED = {  # frames, steps, guidance, vector width, decoder: as the versions were released
    "svd": (14, 25, ("linear", 1.0, 2.5), 768, "temporal"),
    "svd_xt": (25, 30, ("linear", 1.5, 3.0), 768, "temporal"),
    "svd_xt_1_1": (25, 30, ("linear", 1.5, 3.0), 768, "temporal"),
    "svd_image_decoder": (14, 25, ("linear", 1.0, 2.5), 768, "image"),
    "svd_xt_image_decoder": (25, 30, ("linear", 1.5, 3.0), 768, "image"),
    "sv3d_u": (21, 50, ("triangle", 1.0, 2.5), 256, "image"),
    "sv3d_p": (21, 50, ("triangle", 1.0, 2.5), 1280, "image"),
}


@pytest.mark.parametrize("version", RELEASED)
def test_released_versions(version: str) -> None:
    config = load_config(version)
    guidance = (config.guidance.shape, config.guidance.min_scale, config.guidance.max_scale)
    assert (config.num_frames, config.num_steps, guidance, config.vector_width, config.decoder) == RELEASED[version]
    is_sv3d = version.startswith("sv3d")
    assert (config.height, config.width) == ((576, 576) if is_sv3d else (576, 1024))
    assert config.cond_aug == (1e-5 if is_sv3d else 0.02)
    assert config.size_multiple == 64
    assert config.takes_angles == (version == "sv3d_p")


def test_every_bundled_file_is_a_configuration() -> None:
    versions = {path.stem for path in config_folder().glob("*.yaml")}
    assert versions >= RELEASED.keys()
    for version in versions:
        config = load_config(version)
        assert config.width % config.size_multiple == config.height % config.size_multiple == 0


def test_configuration_survives_its_own_file(tmp_path: Path) -> None:
    config = miniature_config("sv3d_p")
    assert load_config("sv3d_p", write_config(config, tmp_path / "sv3d.yaml")) == config


def test_base_is_changed_key_by_key(tmp_path: Path) -> None:
    write_config(miniature_config("svd"), tmp_path / "parent.yaml")
    (tmp_path / "child.yaml").write_text("base: parent\nnum_frames: 7\nguidance: {max_scale: 9}\nscalars: []\n")
    parent, child = load_config("svd", tmp_path / "parent.yaml"), load_config("svd", tmp_path / "child.yaml")
    assert (child.num_frames, child.guidance.max_scale, child.scalars) == (7, 9.0, ())
    assert isinstance(child.guidance.max_scale, float)
    assert (child.num_steps, child.guidance.min_scale, child.unet) == (2, parent.guidance.min_scale, parent.unet)


MISTAKES = {
    "side that is not divisible": ("width: 1001", "width is 1001, but must be divisible by the model's multiple"),
    "nothing": ("num_frames: 0", "num_frames: 0 is not from 1 to 1024"),
    "no levels": ("unet: {channel_mult: []}", r"unet: channel_mult is \[\], but must hold"),
    "groups that do not divide": ("vae: {norm_groups: 7}", r"channel_mult is \d+, but .* norm_groups \(7\)"),
    "other widths": ("unet: {context_dim: 48}", "unet: context_dim is 48, but must be clip's embed_dim"),
    "unknown key": ("num_framse: 7", r"unknown key 'num_framse'; allowed are .*num_frames"),
    "unknown key within": (
        "unet: {modelchannels: 32}",
        r"unet: unknown key 'modelchannels'; allowed are model_channels",
    ),
    "wrong kind": ("num_frames: many", "num_frames: expected int, got 'many'"),
    "fraction": ("num_frames: 7.5", r"num_frames: expected int, got 7\.5"),
    "truth for a number": ("num_frames: true", "num_frames: expected int, got True"),
    "object on no square": ("input: object\nwidth: 64", "framed on a square, but width is 64 and height 32"),
    "not among the choices": ("decoder: audio", "decoder: 'audio' is not one of temporal, image"),
    "no list": ("unet: {channel_mult: 2}", "channel_mult: expected a list, got 2"),
    "no mapping": ("unet: 3", "unet: expected a mapping, got 3"),
    "missing value": ("num_frames: null", "num_frames: expected int, got None"),
    "class path": ("target: os.system", "unknown key 'target'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(tmp_path: Path, mistake: str) -> None:
    text, told = MISTAKES[mistake]
    write_config(miniature_config("svd"), tmp_path / "parent.yaml")
    path = tmp_path / "own.yaml"
    path.write_text(f"base: parent\n{text}\n")
    with pytest.raises(UserError, match=told) as caught:
        load_config("svd", path)
    assert str(caught.value).startswith("own.yaml: ")


def test_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("input: picture\nnum_steps: 3\n")
    with pytest.raises(UserError, match="the key 'ends_at_input' is missing"):
        load_config("svd", path)


@pytest.mark.parametrize("base", ["nobody", "../svd", "/etc/passwd", "[own]", "3", '""'])
def test_bases_that_are_not_beside_the_file(tmp_path: Path, base: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"base: {base}\n")
    with pytest.raises(UserError, match=r"is based on .*, which is not in its folder: there are own"):
        load_config("svd", path)


def test_bases_that_never_end(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("base: other\n")
    (tmp_path / "other.yaml").write_text("base: own\n")
    with pytest.raises(UserError, match="is its own base"):
        load_config("svd", path)


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "{", "\x00"], ids=["list", "open", "zero"])
def test_files_that_are_no_mapping_of_values(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"own\.yaml"):
        load_config("svd", path)


def test_unknown_version_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="the bundled versions are"):
        load_config("svd_2")


@pytest.mark.parametrize(
    "text", ["base: ${oc.env:SECRET}\n", "num_frames: ${oc.env:SECRET}\n", "${oc.env:SECRET}: 1\n"]
)
def test_the_environment_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="a configuration has no variables, only values") as caught:
        load_config("svd", path)
    assert "hunter2" not in str(caught.value)


BOMBS = {
    "nested lists": ("a: " + "[" * 50_000, "nested more than 8 levels deep"),
    "nested mappings": ("a: " + "{a: " * 10_000, "nested more than 8 levels deep"),
    "aliases": ("a: &a [1, 2]\nb: &b [*a, *a]\nc: [*b, *b]\n", "anchor or alias"),
    "size": ("# " + "x" * 2**16, "larger than a configuration may be"),
    "long name": ("x" * 5_000 + ": 1", "more than 200 characters"),
    "long base": ("base: " + "x" * 5_000, "more than 200 characters"),
    "long number": ("num_frames: " + "9" * 5_000, "more than 200 characters"),
    "mixed keys": ("1: 2\na: 3\n", "the key 1, which must be a name"),
    "tag": ("num_frames: !!python/name:os.system\n", "has a tag"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_files_that_would_take_all_time_or_memory(tmp_path: Path, bomb: str) -> None:
    text, told = BOMBS[bomb]
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=told):
        load_config("svd", path)


def test_names_too_long_for_a_file() -> None:
    with pytest.raises(UserError, match="the bundled versions are"):
        load_config("x" * 5_000)
    with pytest.raises(UserError, match="can't be read"):
        load_config("svd", Path("x" * 5_000))


OUT_OF_BOUNDS = {
    "unet: {num_res_blocks: 1000000}": "num_res_blocks: 1000000 is not from 1 to 16",
    "clip: {layers: 1000000000}": "layers: 1000000000 is not from 1 to 128",
    "unet: {channel_mult: [1, 1000000]}": r"channel_mult\[1\]: 1000000 is not from 1 to 16",
    "unet: {channel_mult: [1, 1, 1, 1, 1, 1, 1, 1, 1]}": "channel_mult: expected at most 8 items, got 9",
    "num_frames: 1000000": "num_frames: 1000000 is not from 1 to 1024",
    "cond_aug: .nan": "cond_aug: nan is not from 0 to 10",
    "guidance: {max_scale: .inf}": "max_scale: inf is not from 0 to 100",
    "vae: {scale_factor: 0}": "scale_factor: 0.0 is not from 1e-06",
    "scalars: [{name: cond_aug, width: 32}, {name: cond_aug, width: 32}]": "has a duplicate",
}


@pytest.mark.parametrize("text", OUT_OF_BOUNDS)
def test_numbers_that_no_model_has(tmp_path: Path, text: str) -> None:
    write_config(miniature_config("svd"), tmp_path / "parent.yaml")
    path = tmp_path / "own.yaml"
    path.write_text(f"base: parent\n{text}\n")
    with pytest.raises(UserError, match=OUT_OF_BOUNDS[text]):
        load_config("svd", path)


ODD_VALUES: list[object] = [None, True, -1, 0, 10**9, 10**150, 1e308, float("nan"), float("inf"), "", "x" * 150, "???"]
ODD_VALUES += ["*", "1:30", [], {}, [[]], [None], {"a": 1}, [{"a": []}], ["1", 2], "2001-01-01", "${a}", "\U0001f600"]
ODD_TEXT = [
    "[",
    "]",
    "{",
    "}",
    ":",
    "&a ",
    "*a",
    "!!int ",
    "- ",
    "\t",
    "\x00",
    "? ",
    "|",
    '"',
    "'",
    "#",
    "<<: ",
    "---\n",
]


def mutated(values: dict[str, object], random: Random) -> str:
    """A configuration's text with one value or one place of the text replaced."""
    values = json.loads(json.dumps(values))
    parent: Any = values
    key = random.choice(list(parent))
    while isinstance(parent[key], (dict, list)) and parent[key] and random.random() < 0.7:
        parent = parent[key]
        key = random.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
    parent[key] = random.choice(ODD_VALUES)
    text = yaml.safe_dump(values)
    if random.random() < 0.5:
        place = random.randrange(len(text))
        text = text[:place] + random.choice(ODD_TEXT) + text[place + random.randrange(3) :]
    return text


def test_mutated_configurations_are_read_or_refused_in_a_line(tmp_path: Path) -> None:
    values = json.loads(write_config(miniature_config("sv3d_p"), tmp_path / "whole.yaml").read_text())
    random, path, refusals = Random(0), tmp_path / "own.yaml", []
    for _ in range(300):
        path.write_text(mutated(values, random))
        try:
            load_config("sv3d_p", path)
        except UserError as error:
            refusals.append(str(error))
    assert len(refusals) > 200
    assert [told for told in refusals if len(told.splitlines()) != 1 or len(told) > 1000] == []
