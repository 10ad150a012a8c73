import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import sgm
from sgm.__main__ import sample
from sgm.config import load_config
from sgm.errors import UserError
from sgm.parameters.parameter import parameters_of
from sgm.parameters.request import Request
from sgm.parameters.sample_command import SAMPLE, run
from sgm.parameters.sampling import SamplingParameters
from tests.small_models import deterministic_state

PROJECT = Path(__file__).parent.parent.parent
QUICK = ["--num_frames", "2", "--num_steps", "2", "--width", "64", "--height", "64", "--device", "cpu"]
README_EXAMPLES = [
    ["--input_path", "path/to/image.png", "--version", "svd_xt", "--motion_bucket_id", "127", "--fps_id", "6"],
    ["--input_path", "my_image.png"],
    ["--input_path", "my_image.png", "--motion_bucket_id", "250"],
    ["--input_path", "my_object.png", "--version", "sv3d_p", "--elevations_deg", "[10,15,20,15,10,5,0]"],
    ["--input_path", "my_images_folder/"],
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A function from a tiny version's name to a checkpoint of its structure; the numbers in it mean nothing."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def write(version: str) -> Path:
        path = folder / f"{version}.safetensors"
        if not path.exists():
            state = deterministic_state(load_config(version))
            save_file({key: tensor.half().contiguous() for key, tensor in state.items()}, path)
        return path

    return write


@pytest.fixture
def photo(tmp_path):
    return make_photo(tmp_path / "photo.png", seed=0)


def make_photo(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")
    return path


def command(*words: str | Path, folder: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    """sample.py as a user runs it, as a process of its own in `folder`."""
    return subprocess.run(
        [sys.executable, "-W", "error", PROJECT / "sample.py", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
    )


def run_here(*words: str | Path) -> int:
    """The same in this process, where torch is imported already."""
    return run(sample, [str(word) for word in words])


@pytest.mark.parametrize("words", README_EXAMPLES)
def test_every_documented_example_is_understood(words):
    request = SAMPLE.read(words)
    assert request.input_path == Path(words[1])


def test_both_ways_to_write_a_flag():
    request = SAMPLE.read(["--input-path=a.png", "--verbose", "--cond_aug=0.5", "--seed", "7"])
    assert (str(request.input_path), request.verbose) == ("a.png", True)
    assert (request.sampling.cond_aug, request.sampling.seed) == (0.5, 7)
    assert SAMPLE.read(["--noverbose"]).verbose is False
    assert SAMPLE.read(["--verbose=false"]).verbose is False
    assert SAMPLE.read(["--elevations_deg", "-10"]).sampling.elevations_deg == -10.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--motion_bucket", "3"], "did you mean motion_bucket_id"),
        (["--version", "svd-xt"], "did you mean svd_xt"),
        (["--seed"], "seed is given without a value"),
        (["--seed", "--verbose"], "seed is given without a value"),
        (["-s", "3"], "no parameter 's'"),
        (["--seed", "1", "--seed=2"], "seed is given 2 times"),
        (["photo.png", "other.png"], "'other.png' belongs to no parameter"),
        (["photo.png", "--input_path", "other.png"], "input_path is given twice"),
        (["--elevations_deg", "[10,", "20]"], "'20]' belongs to no parameter"),
        (["--seed", "3", "-", "run"], "'-' belongs to no parameter"),
        (["--", "--interactive"], "'--' belongs to no parameter"),
    ],
)
def test_words_that_make_no_request_are_refused(words, message):
    with pytest.raises(UserError, match=re.escape(message)):
        SAMPLE.read(words)


@pytest.mark.parametrize(
    ("words", "ignored"),
    [
        (["--version", "sv3d_u", "--elevations_deg", "10", "--fps_id", "6"], ["elevations_deg", "fps_id"]),
        (["--version", "svd", "--azimuths_deg", "[1,2]"], ["azimuths_deg"]),
        (["--version", "svd", "--image_frame_ratio", "0.9"], ["image_frame_ratio"]),
        (["--version", "sv3d_p", "--motion_bucket_id", "3"], ["motion_bucket_id"]),
        (["--version", "sv3d_p", "--elevations_deg", "3", "--cond_aug", "0.1"], []),
        (["--version", "svd", "--fps_id", "9", "--motion_bucket_id", "3"], []),
    ],
)
def test_what_the_version_ignores_is_said_where_it_was_given(words, ignored, capsys):
    SAMPLE.read(words)
    warnings = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in warnings] == [f" {words[1]} ignores {name}" for name in ignored]


def test_help_explains_every_parameter_within_100_columns():
    text = SAMPLE.help_text()
    assert max(len(line) for line in text.splitlines()) <= 100
    for owner in (Request, SamplingParameters):
        for name, declared in parameters_of(owner).items():
            (entry,) = re.findall(rf"^  --{name} .*?(?=\n\n)", text, flags=re.DOTALL | re.MULTILINE)
            words = " ".join(entry.split())
            assert declared.explanation in words
            assert "Default: " in words
            if declared.low is not None:
                assert f"from {declared.low} to {declared.high}" in words
    assert re.search(r"--motion_bucket_id N .*\n.* 0 to 255. Default: 127\.", text)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version", "svd", "--help"]])
def test_help_goes_to_stdout(words, capsys):
    assert run(sample, words) == 0
    assert capsys.readouterr() == (SAMPLE.help_text(), "")


@pytest.mark.parametrize(
    ("words", "exit_code"),
    [
        (["--help"], 0),
        (["--vesion", "svd"], 2),
        (["--motion_bucket_id", "300"], 2),
        (["--input_path", "nowhere.png", "--version", "sv3d_p"], 2),
        (["--input_path", "tests/reference/sv3d_object_in.png", "--checkpoint", "nowhere.safetensors"], 2),
        (["--from_record", "nowhere.json"], 2),
    ],
)
def test_words_are_judged_in_a_moment_without_torch(words, exit_code):
    run_and_list = (
        "import sys, time; start = time.process_time(); sys.argv[0] = 'sample.py'; sys.path.insert(0, '.')\n"
        "from sample import run, sample\n"
        "code = run(sample); seconds = time.process_time() - start\n"
        "heavy = {'torch', 'cv2', 'rembg', 'imageio', 'scipy', 'skimage', 'matplotlib'} & set(sys.modules)\n"
        "print(heavy or 'none', file=sys.stderr); print(seconds, file=sys.stderr); sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", run_and_list, *words],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    *said, heavy, seconds = result.stderr.splitlines()
    assert result.returncode == exit_code
    assert heavy == "none"
    assert float(seconds) < 3  # 0.2 on an idle machine
    if exit_code == 2:
        assert result.stdout == ""
        assert len(said) == 1
        assert said[0].startswith("error: ")


def test_a_clip_by_preset_memory_and_decoding_and_again_from_its_record(photo, weights, tmp_path):
    words = [*QUICK[:2], *QUICK[4:], "--version", "svd_tiny", "--checkpoint", weights("svd_tiny")]
    chosen = ["--preset", "fast", "--memory", "low", "--decode", "seamless"]
    chosen += ["--guidance_interval", "[0.1,100]", "--fp8", "linears"]
    made = command("--input_path", photo, *words, *chosen, "--output_folder", tmp_path / "out")
    assert (made.returncode, made.stderr) == (0, "")
    made_with = json.loads((tmp_path / "out" / "photo.json").read_text())
    parameters = made_with["parameters"]
    assert (made_with["memory"], made_with["fp8"]) == ("low", "linears")
    assert (parameters["preset"], parameters["num_steps"], parameters["schedule"]) == ("fast", 2, "ays")
    assert (parameters["sampler"], parameters["cache_interval"]) == ("dpmpp_2m", 2)
    assert (parameters["decode"], parameters["guidance_interval"]) == ("seamless", [0.1, 100])
    record = ["--from_record", tmp_path / "out" / "photo.json"]
    again = command(*record, "--memory", "low", "--output_folder", tmp_path / "again")  # rounding is the mode's own
    assert again.returncode == 0, again.stderr
    frames = [(tmp_path / folder / "photo" / "0001.jpg").read_bytes() for folder in ("out", "again")]
    assert frames[0] == frames[1]


def test_a_missing_checkpoint_is_told_before_the_work(photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sgm.checkpoint.finding.checkpoint_folders", lambda: (tmp_path,))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert run_here("--input_path", photo, "--version", "svd_xt", "--output_folder", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "https://huggingface.co/stabilityai/stable-video-diffusion-img2vid-xt and add --download" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_single_unreadable_image_is_the_users_mistake(tmp_path, weights, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    words = ["--input_path", broken, "--version", "svd_tiny", "--checkpoint", weights("svd_tiny")]
    assert run_here(*words, "--output_folder", tmp_path / "out") == 2
    assert re.fullmatch(r"error: .*broken\.png can't be read.*\n", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["-V"], ["--version"]])
def test_a_version_without_a_value_is_the_programs(words, capsys):
    assert run_here(*words) == 0
    assert capsys.readouterr().out == f"sgm {sgm.__version__}\n"


def test_a_version_with_a_value_is_the_models():
    assert SAMPLE.read(["--version", "sv3d_tiny"]).version == "sv3d_tiny"


def test_verbose_shows_values_and_traceback(capsys):
    assert run_here("--input_path", "nowhere.png", "--seed", "5") == 2
    quiet = capsys.readouterr().err
    assert run_here("--input_path", "nowhere.png", "--seed", "5", "--verbose") == 2
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "\nseed: 5\n" in said
    assert said.endswith(quiet)
    assert len(quiet.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (MemoryError(), 1, "--decoding_t 1"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 1, "--decoding_t 1"),
        (RuntimeError("MPS backend out of memory (allocated 9 GB)"), 1, "--decoding_t 1"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (RuntimeError("a bug\nwith details"), 1, "RuntimeError: a bug (--verbose shows where)"),
    ],
)
def test_failures_end_in_one_line_and_their_exit_code(error, exit_code, line, capsys):
    def work(request):
        raise error

    assert run(work, []) == exit_code
    said = capsys.readouterr().err
    assert line in said
    assert len(said.splitlines()) == 1


def test_a_clip_from_another_folder_as_a_user_makes_it(tmp_path, weights):
    make_photo(tmp_path / "photo.png", seed=0)
    checkpoint = weights("svd_tiny")
    result = command(
        *("--input_path", "photo.png", "--version", "svd_tiny", "--checkpoint", checkpoint, *QUICK), folder=tmp_path
    )
    assert result.stderr == "by the memory that is free: --memory high\n"  # no terminal, no progress
    assert result.returncode == 0
    video = Path("outputs", "svd_tiny", "photo.mp4")
    assert re.fullmatch(rf"{re.escape(str(video))}: 2 frames, 80x80, \d+\.\d s\n", result.stdout)
    assert (tmp_path / video).stat().st_size > 0
    assert sorted(path.name for path in (tmp_path / video.with_suffix("")).iterdir()) == ["0000.jpg", "0001.jpg"]
    assert json.loads((tmp_path / video.with_suffix(".json")).read_text())["parameters"]["num_steps"] == 2


def test_a_folder_is_made_whole_but_for_what_cannot_be_read(tmp_path, weights, capsys):
    images, together, alone = tmp_path / "images", tmp_path / "together", tmp_path / "alone"
    images.mkdir()
    for seed, name in enumerate(("b.png", "a.PNG", "d.png")):
        make_photo(images / name, seed)
    (images / "c.png").write_bytes(b"no picture")
    settings = ["--version", "svd_tiny", "--checkpoint", weights("svd_tiny"), *QUICK]

    assert run_here("--input_path", images, "--output_folder", together, *settings) == 1
    out, err = capsys.readouterr()
    assert [Path(line.split(":")[0]).name for line in out.splitlines()] == ["a.mp4", "b.mp4", "d.mp4"]
    assert re.search(r"^failed \(3 of 4, .* left\): .*c\.png can't be read", err, flags=re.MULTILINE)

    assert run_here("--input_path", images / "d.png", "--output_folder", alone, *settings) == 0
    for frame in ("0000.jpg", "0001.jpg"):
        assert (together / "d" / frame).read_bytes() == (alone / "d" / frame).read_bytes()
    assert (together / "a" / "0001.jpg").read_bytes() != (together / "d" / "0001.jpg").read_bytes()


def test_an_image_of_a_folder_that_shows_no_object_is_named(tmp_path, weights, capsys):
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGBA", (64, 64)).save(images / "empty.png")
    words = ["--input_path", images, "--version", "sv3d_tiny", "--checkpoint", weights("sv3d_tiny"), "--device", "cpu"]
    assert run_here(*words, "--output_folder", tmp_path / "out") == 1
    assert re.search(
        r"^failed \(1 of 1, 00:00 left\): .*empty\.png: no object was found", capsys.readouterr().err, re.M
    )


@pytest.mark.parametrize(
    ("version", "image", "told"),
    [
        ("svd_tiny", Image.new("RGB", (900, 100)), "longer than 8:1"),
        ("sv3d_tiny", Image.new("RGBA", (64, 64)), "no object was found"),
    ],
)
def test_a_single_image_that_fits_no_clip_is_told_before_the_weights_are_read(version, image, told, tmp_path, capsys):
    image.save(tmp_path / "image.png")
    no_weights = tmp_path / "weights.safetensors"
    no_weights.write_bytes(b"not read")
    words = ["--input_path", tmp_path / "image.png", "--version", version, "--checkpoint", no_weights]
    assert run_here(*words, "--output_folder", tmp_path / "out") == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_key_elevations_reach_the_orbit(tmp_path, weights, capsys):
    source = PROJECT / "tests" / "reference" / "sv3d_object_in.png"
    settings = ["--version", "sv3d_tiny", "--checkpoint", weights("sv3d_tiny"), "--num_steps", "1", "--device", "cpu"]
    for name, elevations in (("keys", "[10,15,20,15,10,5,0]"), ("level", "0")):
        words = ["--input_path", source, *settings, "--elevations_deg", elevations, "--output_folder", tmp_path / name]
        assert run_here(*words) == 0
    assert "21 frames" in capsys.readouterr().out
    keys, level = ([*(tmp_path / name / source.stem).iterdir()] for name in ("keys", "level"))
    assert len(keys) == len(level) == 21
    digests = [{hashlib.sha256(path.read_bytes()).hexdigest() for path in paths} for paths in (keys, level)]
    assert digests[0] != digests[1]
