"""What becomes of decoded frames: the order of the stages, the shape foretold, and whole command lines."""

import json
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sgm.__main__ import sample
from sgm.config import load_config
from sgm.enhance.details import carry_details
from sgm.enhance.interpolation import interpolate
from sgm.errors import UserError
from sgm.generation.finishing import Finisher
from sgm.outputs.record import read_record
from sgm.parameters.remake import recorded_parameters, recorded_sampling
from sgm.parameters.sample_command import run
from sgm.parameters.sampling import SamplingParameters
from sgm.stages import Stages

PHOTO = Path(__file__).parents[2] / "assets" / "test_image.png"
SMALL = (64, 48)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.open(PHOTO).convert("RGB")


@pytest.fixture(scope="module")
def frames(photo: Image.Image) -> np.ndarray:
    """A small clip of the photograph, in which the camera moves to the right."""
    steps = [photo.crop((4 * step, 0, 4 * step + 480, 360)).resize(SMALL) for step in range(5)]
    return np.stack([np.asarray(step) for step in steps])


def finisher(photo: Image.Image, version: str = "svd_tiny", num_frames: int = 5, **given: object) -> Finisher:
    config = load_config(version)
    settings = SamplingParameters(num_frames=num_frames, **given).resolved_for(config)
    return Finisher.of(settings, photo, SMALL, repeats=config.ends_at_input)


def finished(by: Finisher, frames: np.ndarray, chunk: int = 2) -> np.ndarray:
    chunks = (frames[start : start + chunk] for start in range(0, len(frames), chunk))
    return np.concatenate(list(by.finish(chunks, Stages())))


def test_the_small_version_has_details_by_default_and_released_ones_stay_as_they_are(photo, frames):
    assert finisher(photo).frames_shape == (5, 96, 128, 3)
    assert finisher(photo, "svd").frames_shape == (5, 48, 64, 3)
    assert np.array_equal(finished(finisher(photo, enhance="none"), frames), frames)


def test_a_clip_is_never_larger_than_its_image(photo, frames):
    small = photo.resize((96, 72))
    by = finisher(small, enhance_size=8)
    assert by.frames_shape == (5, 72, 96, 3)
    assert finished(by, frames).shape == by.frames_shape


@pytest.mark.parametrize(
    ("out_fps", "pingpong", "num_frames", "version"),
    [
        *product((None, 2.5, 6, 24, 25), (False, True), (1, 2, 5), ["svd"]),
        (24, False, 5, "sv3d_u"),
        (9, True, 5, "sv3d_u"),
    ],
)
def test_the_shape_is_known_before_the_frames(photo, frames, out_fps, pingpong, num_frames, version):
    by = finisher(photo, version, num_frames, out_fps=out_fps, pingpong=pingpong)
    assert finished(by, frames[:num_frames]).shape == by.frames_shape
    assert by.fps == (out_fps or 6)


def test_details_come_before_smoothing_and_the_way_back_last(photo, frames):
    by = finisher(photo, out_fps=12, pingpong=True)
    detailed = np.concatenate(list(carry_details([frames], np.asarray(by.detailed))))
    smooth = np.concatenate(list(interpolate([detailed], 6, 12, 5)))
    made = finished(by, frames)
    assert np.array_equal(made, np.concatenate([smooth, smooth[-2:0:-1]]))
    assert np.array_equal(made[: len(smooth) : 2], detailed), "frames that were there are untouched"


def test_an_orbit_goes_on_from_its_last_view_to_its_first(photo, frames):
    around = finished(finisher(photo, "sv3d_u", out_fps=12), frames)
    onward = finished(finisher(photo, "svd", out_fps=12), frames)
    assert np.array_equal(around[:-1], onward[:-1])
    assert np.array_equal(onward[-1], frames[-1])
    assert not np.array_equal(around[-1], frames[-1])


@pytest.mark.parametrize("chunk", [1, 3, 5])
def test_chunks_make_no_difference(photo, frames, chunk):
    by = finisher(photo, out_fps=9, pingpong=True)
    assert np.array_equal(finished(by, frames, chunk), finished(by, frames, 2))


def test_an_orbit_takes_no_details_from_its_image():
    with pytest.raises(UserError, match=r"sv3d_p can't use enhance details, .*: omit it"):
        SamplingParameters(enhance="details").resolved_for(load_config("sv3d_p"))


@pytest.mark.parametrize(("version", "more"), [("svd", {}), ("svd_tiny", {"enhance": "none"})])
def test_a_size_without_details_is_refused_and_what_is_recorded_is_not(version, more):
    config = load_config(version)
    with pytest.raises(UserError, match="enhance_size 3 is for enhance details: add that, or omit"):
        SamplingParameters(enhance_size=3, **more).resolved_for(config)
    settings = SamplingParameters(**more).resolved_for(config)
    assert SamplingParameters(**settings.as_parameters()).resolved_for(config) == settings


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a smooth clip with details, as the command line makes it."""
    folder = tmp_path_factory.mktemp("made")
    words = {"version": "svd_tiny", "num_frames": "3", "num_steps": "1", "enhance_size": "1.5", "out_fps": "12"}
    flags = [word for name, value in words.items() for word in (f"--{name}", value)]
    assert run(sample, [str(PHOTO), "--output_folder", str(folder), *flags, "--pingpong"]) == 0
    return folder


def test_the_video_is_what_the_record_says(made):
    record = read_record(made / "test_image.json")
    assert record["output"] == {
        **{"frames": 10, "width": 240, "height": 144, "fps": 12.0},
        **{"formats": ["mp4", "frames"], "quality": 95},
    }
    assert {"enhancing", "interpolating"} <= record["stages"].keys()
    with av.open(made / "test_image.mp4") as video:
        (stream,) = video.streams.video
        assert (stream.average_rate, stream.width, stream.height) == (12, 240, 144)
        assert len(list(video.decode(stream))) == 10


def test_a_replay_is_the_same_to_the_byte(made, tmp_path):
    assert run(sample, ["--from_record", str(made / "test_image.json"), "--output_folder", str(tmp_path)]) == 0
    assert (tmp_path / "test_image.mp4").read_bytes() == (made / "test_image.mp4").read_bytes()


def test_a_record_from_before_plays_as_it_did(made, tmp_path):
    record = json.loads((made / "test_image.json").read_text())
    for name in ("enhance", "enhance_size", "out_fps", "pingpong", "fps"):
        del record["parameters"][name]
    record["output"]["fps"] = 8.0
    (tmp_path / "old.json").write_text(json.dumps(record))
    settings = recorded_sampling(read_record(tmp_path / "old.json")).resolved_for(load_config("svd_tiny"))
    assert settings.finishing.enhance == "none"
    assert settings.fps == 8.0
    assert recorded_parameters(tmp_path / "old.json")["enhance"] == "none"
