"""Prompts from the command line and from Python to the clip, its record, and the clip made again."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from sgm.__main__ import sample
from sgm.batch.items import plan_items
from sgm.batch.resume import Records
from sgm.checkpoint.finding import find_checkpoint
from sgm.errors import UserError
from sgm.generation.pipeline import Pipeline, load
from sgm.generation.prompting import remarks_on_prompt
from sgm.parameters.request import make_request
from sgm.parameters.sample_command import run
from sgm.parameters.sampling import SamplingParameters
from sgm.progress import Progress
from tests.generation.prompted import READING, Files, write_files

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("versions"))


@pytest.fixture(scope="module")
def reading(files: Files) -> Pipeline:
    return load("svd", checkpoint=files.folder / "reading.safetensors", config=files.folder / "reading.yaml")


def in_its_own_process(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROJECT / "sample.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)


def remarks(prompt: str) -> list[str]:
    return remarks_on_prompt(SamplingParameters(prompt=prompt).resolved_for(READING), READING)


def frames(folder: Path, name: str = "photo") -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / name).glob("*.jpg"))]


def test_a_prompt_reaches_the_clip_and_its_record_makes_it_again(files: Files, tmp_path: Path) -> None:
    words = [*files.reading, "--prompt", " Please pan left ", "--output_folder", tmp_path / "out"]
    done = in_its_own_process(*words)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    assert warnings == ["warning: svd ignores words of prompt 'Please pan left' that it doesn't know: please"]
    record = json.loads((tmp_path / "out" / "photo.json").read_text())
    assert record["parameters"]["prompt"] == "Please pan left"
    assert run(sample, [*files.reading, "--output_folder", str(tmp_path / "without")]) == 0
    assert frames(tmp_path / "without") != frames(tmp_path / "out")
    again = ["--from_record", str(tmp_path / "out" / "photo.json"), "--output_folder", str(tmp_path / "again")]
    assert run(sample, again) == 0
    assert frames(tmp_path / "again") == frames(tmp_path / "out")
    assert len(frames(tmp_path / "again")) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--version", "svd", "--prompt", "pan left"], "svd can't follow 'pan', 'left'"),
        (["--version", "sv3d_p", "--prompt", "slow"], "sv3d_p takes no prompt"),
        (["--version", "svd", "--prompt", "slow", "--fps_id", "6"], "omit one of the two"),
    ],
)
def test_what_a_version_cannot_follow_is_one_line_before_weights_are_looked_for(words: list[str], told: str) -> None:
    done = in_its_own_process(*words, "--checkpoint", "nowhere.safetensors")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert told in done.stderr


def test_a_prompt_without_any_known_word_is_refused_before_weights_are_looked_for(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*files.reading, "--prompt", "qwertz asdf"]
    given[given.index("--checkpoint") + 1] = "nowhere.safetensors"
    assert run(sample, given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: svd knows no word of prompt 'qwertz asdf': say it in others, such as 'pan left")


@pytest.mark.parametrize("prompt", ["相机向左", "!!!", "42"])
def test_other_languages_and_signs_are_no_known_words(prompt: str) -> None:
    with pytest.raises(UserError, match="knows no word of"):
        remarks(prompt)


def test_what_is_ignored_of_a_prompt_is_named() -> None:
    assert remarks("pan left slowly, the camera doesn\u2019t move") == []
    (unknown,) = remarks("qqq pan qqq left zzz")
    assert unknown.endswith("words of prompt 'qqq pan qqq left zzz' that it doesn't know: qqq, zzz")
    (many,) = remarks("pan " + " ".join(f"{'x' * k}" for k in range(1, 20)))
    assert many.endswith("x, xx, xxx, xxxx, xxxxx, xxxxxx, xxxxxxx, xxxxxxxx, xxxxxxxxx, xxxxxxxxxx, ...")
    (surplus,) = remarks("left " * 32 + "right up")
    assert surplus.endswith(
        "reads 32 words, and ignores the last of prompt " + repr("left " * 32 + "right up") + ": right, up"
    )


def test_words_that_stand_for_numbers_are_said_and_recorded_with_them(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*files.plain, "--prompt", "strong, slow motion", "--output_folder", str(tmp_path / "out")]
    assert run(sample, words) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "prompt" in line]
    told = "prompt 'strong, slow motion' stands for motion_bucket_id 200, fps_id 12 in svd, which reads no text"
    assert said == [f"{told}, played at 6 frames a second"]
    parameters = json.loads((tmp_path / "out" / "photo.json").read_text())["parameters"]
    recorded = {name: parameters[name] for name in ("prompt", "motion_bucket_id", "fps_id", "fps")}
    assert recorded == {"prompt": "strong, slow motion", "motion_bucket_id": 200, "fps_id": 12, "fps": 6.0}
    numbers = ["--motion_bucket_id", "200", "--fps_id", "12", "--fps", "6"]
    assert run(sample, [*files.plain, *numbers, "--output_folder", str(tmp_path / "numbers")]) == 0
    assert frames(tmp_path / "numbers") == frames(tmp_path / "out")
    again = ["--from_record", str(tmp_path / "out" / "photo.json"), "--output_folder", str(tmp_path / "again")]
    assert run(sample, again) == 0
    assert frames(tmp_path / "again") == frames(tmp_path / "out")


def test_without_a_prompt_a_version_that_reads_text_is_the_version_without_text(
    files: Files, reading: Pipeline
) -> None:
    plain = load("svd", checkpoint=files.folder / "plain.safetensors", config=files.folder / "plain.yaml")
    assert np.array_equal(reading(files.photo).frames, plain(files.photo).frames)
    assert not np.array_equal(reading(files.photo, prompt="pan left").frames, plain(files.photo).frames)


def test_python_says_what_it_makes_of_a_prompt(
    files: Files, reading: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = replace(reading.generator, progress=Progress())  # on the stderr of now
    clip = replace(reading, generator=generator)(files.photo, prompt="zzz left")
    assert "svd ignores words of prompt 'zzz left' that it doesn't know: zzz" in capsys.readouterr().err
    assert clip.record["parameters"]["prompt"] == "zzz left"
    with pytest.raises(UserError, match="knows no word"):
        reading(files.photo, prompt="zzz")
    with pytest.raises(UserError, match=r"prompt can't be .*: give one line"):
        reading(files.photo, prompt="a\nb")


def test_a_prompt_holds_for_a_whole_folder_and_a_line_may_have_its_own(files: Files, tmp_path: Path) -> None:
    """Clips with and without text go through the network in groups of their own, each the same as alone."""
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    for name in "ab":
        Image.open(files.photo).save(inputs / f"{name}.png")
    of_folder = [*files.reading, "--prompt", "pan left", "--batch_size", "2", "--output_folder", str(out)]
    of_folder[1] = str(inputs)
    assert run(sample, of_folder) == 0
    prompts = {path.stem: json.loads(path.read_text())["parameters"]["prompt"] for path in out.glob("[ab].json")}
    assert prompts == {"a": "pan left", "b": "pan left"}
    assert "prompt pan left" in (out / "index.html").read_text()
    lines = [{"input_path": "in/a.png", "output_name": "none", "prompt": None}, {"input_path": "in/a.png"}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    of_list = [*of_folder[:-1], str(tmp_path / "list")]
    of_list[1] = str(tmp_path / "list.jsonl")
    assert run(sample, of_list) == 0
    listed = {path.stem: json.loads(path.read_text())["parameters"]["prompt"]
              for path in (tmp_path / "list").rglob("*.json") if path.name != "report.json"}  # fmt: skip
    assert set(listed.values()) == {None, "pan left"}


def test_a_line_with_a_prompt_that_cannot_be_followed_is_named(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"input_path": str(files.photo)}, {"input_path": str(files.photo), "prompt": "zzz"}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = [*files.reading, "--output_folder", str(tmp_path / "out")]
    words[1] = str(tmp_path / "list.jsonl")
    assert run(sample, words) == 2
    assert "line 2: svd knows no word of prompt 'zzz'" in capsys.readouterr().err


def test_another_prompt_asks_for_a_new_clip_and_an_old_record_has_none(files: Files, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    Image.open(files.photo).save(folder / "photo.png")
    weights = files.folder / "plain.safetensors"
    words = [*files.plain, "--output_folder", str(out)]
    words[1] = str(folder)
    assert run(sample, words) == 0

    def found(**changes: object) -> bool:
        given = {"input_path": folder, "output_folder": out, "version": "svd", "config": files.folder / "plain.yaml"}
        request = make_request({**given, **changes})
        (item,) = plan_items(request, lambda line: None)
        return Records(request, find_checkpoint("svd", weights)).find(item) is not None

    assert found()
    assert not found(prompt="strong motion")
    record = json.loads((out / "photo.json").read_text())
    del record["parameters"]["prompt"], record["model"]["text"]  # as records were before there were prompts
    (out / "photo.json").write_text(json.dumps(record))
    assert found()
    assert not found(prompt="strong motion")
    again = ["--from_record", str(out / "photo.json"), "--output_folder", str(tmp_path / "again")]
    assert run(sample, again) == 0
    assert frames(tmp_path / "again") == frames(out)


def test_every_tensor_for_text_has_an_influence(files: Files, reading: Pipeline, tmp_path: Path) -> None:
    """Else a prompt would be read in part only."""
    state = load_file(files.folder / "reading.safetensors")
    of_text = [key for key in state if key.startswith("conditioner.text.") or ".attn_text." in key]
    assert len(of_text) > 20
    clip = reading(files.photo, prompt="pan left").frames
    for part in ("conditioner.text.words", "conditioner.text.blocks.0", ".attn_text.to_v", ".attn_text.to_q"):
        changed = {key: -tensor if part in key else tensor for key, tensor in state.items()}
        save_file(changed, tmp_path / "changed.safetensors")
        other = load("svd", checkpoint=tmp_path / "changed.safetensors", config=files.folder / "reading.yaml")
        assert not np.array_equal(other(files.photo, prompt="pan left").frames, clip), part


def test_the_text_is_dropped_together_with_the_image(reading: Pipeline) -> None:
    """As in training: guidance leads away from a clip without either."""
    import torch

    model, settings = reading.generator.model, replace(SamplingParameters(prompt="pan left").resolved_for(READING))
    image = torch.zeros(1, 3, 32, 32)
    conditions = reading.generator._condition(image, image, settings)
    assert conditions.crossattn.shape == (1, 1 + READING.text.tokens, READING.unet.context_dim)
    assert conditions.crossattn[:, 1:].abs().min() > 0
    assert conditions.unconditional().crossattn.abs().max() == 0
    assert model.conditioner.context(image, None).shape[1] == 1
