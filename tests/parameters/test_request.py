import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from sgm.benchmark.request import BenchmarkRequest
from sgm.config import RELEASES, load_config
from sgm.diffusion.edm import SAMPLERS, SCHEDULES
from sgm.errors import UserError
from sgm.parameters.parameter import parameters_of
from sgm.parameters.request import Request, make_request
from sgm.parameters.sampling import Framing, SamplingParameters, ignored_parameters
from sgm.runtime.devices import MEMORY_MODES


def test_defaults_are_those_of_the_parameter_table():
    request = make_request({})
    assert request.version == "svd_xt"
    assert request.input_path.parts[-2:] == ("assets", "test_image.png")
    assert request.output_folder == Path("outputs/svd_xt")
    assert (request.device, request.verbose) == (None, False)
    sampling = request.settings
    assert (sampling.num_frames, sampling.num_steps) == (25, 30)
    assert (sampling.fps_id, sampling.motion_bucket_id, sampling.cond_aug, sampling.seed) == (6, 127, 0.02, 23)
    assert (sampling.decoding_t, sampling.orbit) == (14, None)
    assert sampling.framing == Framing()


@pytest.mark.parametrize(
    ("version", "num_frames", "num_steps", "cond_aug"),
    [("svd", 14, 25, 0.02), ("svd_xt_1_1", 25, 30, 0.02), ("sv3d_u", 21, 50, 1e-5), ("sv3d_p", 21, 50, 1e-5)],
)
def test_frames_steps_and_augmentation_default_by_version(version, num_frames, num_steps, cond_aug):
    sampling = make_request({"version": version}).settings
    assert (sampling.num_frames, sampling.num_steps, sampling.cond_aug) == (num_frames, num_steps, cond_aug)


def test_what_is_given_outweighs_what_the_version_prescribes():
    sampling = make_request({"version": "sv3d_p", "num_frames": 5, "num_steps": 2, "cond_aug": 0.1}).settings
    assert (sampling.num_frames, sampling.num_steps, sampling.cond_aug) == (5, 2, 0.1)


def test_defaults_that_follow_the_version_or_another_parameter():
    request = make_request({"version": "sv3d_u", "fps_id": 9})
    assert request.input_path.name == "object.png"
    assert request.output_folder == Path("outputs/sv3d_u")
    assert request.settings.fps == 9.0
    assert make_request({"fps_id": 9, "fps": 24}).settings.fps == 24.0


def test_the_default_image_is_the_projects_whatever_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert make_request({}).input_path == Path(__file__).parent.parent.parent / "assets" / "test_image.png"
    assert make_request({"input_path": "assets/test_image.png"}).input_path == Path("assets/test_image.png")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("num_frames", "3", 3),
        ("num_frames", "None", None),
        ("seed", "0", 0),
        ("seed", str(2**63 - 1), 2**63 - 1),
        ("cond_aug", "1e-3", 0.001),
        ("image_frame_ratio", "1", 1.0),
        ("elevations_deg", "-10", -10.0),
        ("elevations_deg", "[10,15,20,15,10,5,0]", (10.0, 15.0, 20.0, 15.0, 10.0, 5.0, 0.0)),
        ("elevations_deg", "[10, 15,]", (10.0, 15.0)),
        ("elevations_deg", "1,2,3", (1.0, 2.0, 3.0)),
        ("elevations_deg", "(1,2)", (1.0, 2.0)),
        ("azimuths_deg", "45", (45.0,)),
        ("azimuths_deg", "[350,10,-30]", (350.0, 10.0, -30.0)),
    ],
)
def test_text_becomes_the_value_that_it_spells(name, text, value):
    read = getattr(SamplingParameters(**{name: text}), name)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(("text", "value"), [("false", False), ("True", True), ("no", False), ("1", True)])
def test_verbose_false_is_false(text, value):
    assert make_request({"verbose": text}).verbose is value


def test_paths_are_kept_to_the_letter():
    assert make_request({"input_path": "1e3"}).input_path == Path("1e3")
    assert make_request({"input_path": "[a,b].png"}).input_path == Path("[a,b].png")
    assert make_request({"input_path": "~/a.png"}).input_path == Path.home() / "a.png"


def test_values_of_python_code_are_taken_as_they_are():
    sampling = SamplingParameters(seed=np.int64(5), elevations_deg=np.array([1, 2]), azimuths_deg=[3], cond_aug=0)
    assert (sampling.seed, sampling.elevations_deg, sampling.azimuths_deg) == (5, (1.0, 2.0), (3.0,))
    assert type(sampling.seed) is int
    assert type(sampling.cond_aug) is float


RANGES = [
    (name, edge)
    for owner in (SamplingParameters, Request)
    for name, declared in parameters_of(owner).items()
    if declared.low is not None
    for edge in (declared.low - (2 if name == "seed" else 1), declared.high + 1)
]


@pytest.mark.parametrize(("name", "value"), RANGES)
def test_values_outside_the_range_are_refused_by_name(name, value):
    with pytest.raises(UserError, match=rf"{name} can't be {re.escape(repr(value))}: give .* from .* to "):
        make_request({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_frames", "2.5"),
        ("num_frames", 2.5),
        ("num_frames", True),
        ("seed", None),
        ("seed", "abc"),
        ("motion_bucket_id", "[127]"),
        ("cond_aug", "nan"),
        ("cond_aug", "inf"),
        ("elevations_deg", "[]"),
        ("elevations_deg", "[10,x]"),
        ("elevations_deg", [10, 91]),
        ("azimuths_deg", "[10,,20]"),
        ("verbose", "maybe"),
        ("verbose", 2),
        ("device", "gpu"),
        ("device", "cuda:x"),
        ("precision", "fp8"),
        ("preset", "quick"),
        ("sampler", "ddim"),
        ("schedule", "linear"),
        ("decode", "whole"),
        ("memory", "lower"),
        ("cache_interval", "0.5"),
        ("input_path", ""),
        ("version", 3),
    ],
)
def test_values_of_the_wrong_kind_are_refused_by_name(name, value):
    with pytest.raises(UserError, match=rf"^{name} can't be {re.escape(repr(value))}.*: give \S+"):
        make_request({name: value})


def test_a_flag_without_its_value_is_refused():
    with pytest.raises(UserError, match="input_path is given without a value: give the path of a local file or folder"):
        make_request({"input_path": "True"})


@pytest.mark.parametrize("name", ["svd-xt", "SVD_XT", "svd_xtt"])
def test_a_misspelt_version_is_answered_with_the_right_one(name):
    with pytest.raises(UserError, match=r"did you mean svd_xt\?"):
        make_request({"version": name})


def test_a_misspelt_name_is_answered_with_the_right_one():
    with pytest.raises(UserError, match=r"no parameter 'motion_bucket' \(did you mean motion_bucket_id\?\)"):
        make_request({"motion_bucket": 3})


def test_requests_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_request({}).version = "svd"
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingParameters().seed = 3


@pytest.mark.parametrize("name", ["width", "height"])
def test_a_side_that_the_version_cannot_make_is_refused(name):
    with pytest.raises(UserError, match=f"{name} 100 .*divisible by 64.*128"):
        make_request({"version": "svd", name: 100})
    assert getattr(make_request({"version": "svd", name: 128}).sampling, name) == 128


def test_orbits_are_square():
    assert make_request({"version": "sv3d_p"}).settings.framing.width == 576
    sampling = make_request({"version": "sv3d_p", "height": 64}).settings.framing
    assert (sampling.width, sampling.height) == (64, 64)
    with pytest.raises(UserError, match="square videos, not 64x128"):
        make_request({"version": "sv3d_p", "width": 64, "height": 128})


def test_more_angles_than_frames_are_refused_where_angles_count():
    with pytest.raises(UserError, match="elevations_deg has 3 angles for 2 frames"):
        make_request({"version": "sv3d_p", "num_frames": 2, "elevations_deg": [1, 2, 3]})
    assert make_request({"version": "svd", "num_frames": 2, "elevations_deg": [1, 2, 3]}).settings.num_frames == 2


@pytest.mark.parametrize("azimuths", [90, [360], [0, 720], [0.1, 360.1], [-1e-9, 0]])
def test_an_orbit_that_stands_still_is_refused(azimuths):
    with pytest.raises(UserError, match="leaves the camera where it is: give angles that differ"):
        make_request({"version": "sv3d_p", "azimuths_deg": azimuths})
    swinging = make_request({"version": "sv3d_p", "azimuths_deg": azimuths, "elevations_deg": [0, 20]}).settings.orbit
    assert len({*swinging.elevations_deg}) > 1


@pytest.mark.parametrize("given", [{}, {"azimuths_deg": [30, 200, 10], "elevations_deg": [5, -5]}, {"preset": "fast"}])
def test_recorded_settings_resolve_to_themselves(given):
    for version in RELEASES:
        config = load_config(version)
        settings = SamplingParameters(**given).resolved_for(config)
        recorded = json.loads(json.dumps(settings.as_parameters()))
        assert SamplingParameters(**recorded).resolved_for(config) == settings


@pytest.mark.parametrize("text", ["random", "-1", -1])
def test_a_random_seed_is_drawn_anew(text):
    seeds = {make_request({"seed": text}).settings.seed for _ in range(5)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("image", "did you mean input_path?"),
        ("resolution", "did you mean width and height?"),
        ("text", "did you mean prompt?"),
        ("x" * 5000, "xxx ...'; --help"),
    ],
)
def test_other_programs_names_get_a_hint(name, told):
    with pytest.raises(UserError, match=re.escape(told)) as raised:
        make_request({name: "a"})
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("url", ["https://example.org/a.png", "s3://bucket/a.png"])
def test_a_url_is_no_path(url):
    with pytest.raises(UserError, match=f"input_path can't be '{url}': give the path of a local file or folder"):
        make_request({"input_path": url})


@pytest.mark.parametrize(("text", "device"), [("CPU", "cpu"), ("cpu:0", "cpu"), ("CUDA:1", "cuda:1"), ("mps:0", "mps")])
def test_devices_by_other_spellings(text, device):
    assert make_request({"device": text}).device == device


def test_what_each_version_ignores():
    angles = {"elevations_deg", "azimuths_deg"}
    motion = {"fps_id", "motion_bucket_id"}
    for version in RELEASES:
        ignored = set(ignored_parameters(load_config(version)))
        if version.endswith("image_decoder"):
            assert ignored == angles | {"image_frame_ratio", "decode"}, version
        elif version.startswith("svd"):
            assert ignored == angles | {"image_frame_ratio"}, version
        elif version == "sv3d_u":
            assert ignored == angles | motion | {"decode"}
        else:
            assert ignored == motion | {"decode"}, version


def test_every_parameter_is_explained():
    for owner in (Request, SamplingParameters):
        declared = parameters_of(owner)
        assert set(declared) | {"sampling", "settings", "model"} >= {field.name for field in dataclasses.fields(owner)}
        assert all(len(parameter.explanation.split()) >= 5 for parameter in declared.values())


def test_presets_fill_in_what_is_not_given():
    exact = make_request({"version": "svd_xt"}).settings
    assert (exact.num_steps, exact.schedule, exact.sampler, exact.cache_interval) == (30, "karras", "euler", 1)
    fast = make_request({"version": "svd_xt", "preset": "fast"}).settings
    assert (fast.num_steps, fast.schedule, fast.sampler, fast.cache_interval) == (10, "ays", "dpmpp_2m", 2)
    mixed = make_request({"version": "svd_xt", "preset": "fast", "num_steps": 7, "sampler": "heun"}).settings
    assert (mixed.num_steps, mixed.schedule, mixed.sampler, mixed.cache_interval) == (7, "ays", "heun", 2)
    assert make_request({"version": "sv3d_tiny", "preset": "fast"}).settings.num_steps == 1


def test_choices_are_the_ones_that_there_are():
    sampling, request = parameters_of(SamplingParameters), parameters_of(Request)
    assert sampling["schedule"].choices == tuple(SCHEDULES)
    assert sampling["sampler"].choices == tuple(SAMPLERS)
    assert request["memory"].choices == ("auto", *MEMORY_MODES)
    assert parameters_of(BenchmarkRequest)["memory"].choices == tuple(MEMORY_MODES)


@pytest.mark.parametrize("text", ["5", "[1]", "[1,2,3]", "[2,1]", "low,high", "[-1,5]"])
def test_an_interval_that_is_none_is_refused(text):
    with pytest.raises(
        UserError, match=r"guidance_interval can't be .*: give two numbers from 0 to 1000, the lower one first"
    ):
        make_request({"guidance_interval": text})


def test_an_interval():
    assert make_request({"guidance_interval": "0.1,100"}).sampling.guidance_interval == (0.1, 100.0)
