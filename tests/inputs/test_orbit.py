import math

import numpy as np
import pytest

from sgm.errors import UserError
from sgm.inputs.orbit import make_orbit

# elevations_deg, polars_rad and azimuths_rad of the original's run in sv3d_p_small.safetensors
GOLDEN_ELEVATIONS_DEG = [10.0, 14.7552824020, 12.9389266968, 7.0610737801, 5.2447175980]
GOLDEN_POLARS_RAD = [1.3962634016, 1.3132680690, 1.3449694554, 1.4475573235, 1.4792587369]
GOLDEN_AZIMUTHS_RAD = [1.2566370614, 2.5132741229, 3.7699111843, 5.0265482457, 0.0]


def test_angles_agree_with_the_original():
    orbit = make_orbit(5, GOLDEN_ELEVATIONS_DEG)
    assert orbit.polars_rad == pytest.approx(GOLDEN_POLARS_RAD, abs=1e-6)
    assert orbit.azimuths_rad == pytest.approx(GOLDEN_AZIMUTHS_RAD, abs=1e-6)


@pytest.mark.parametrize("num_frames", [1, 2, 14, 21])
def test_defaults_are_even_steps_once_round_ending_at_the_input(num_frames):
    orbit = make_orbit(num_frames)
    assert orbit.elevations_deg == (10.0,) * num_frames
    assert orbit.azimuths_deg == pytest.approx(np.linspace(0, 360, num_frames + 1)[1:] % 360)
    assert orbit.azimuths_deg[-1] == orbit.azimuths_rad[-1] == 0


def test_seven_key_elevations_fall_on_every_third_of_21_frames():
    orbit = make_orbit(21, [10, 15, 20, 15, 10, 5, 0])
    assert orbit.elevations_deg[2::3] == (10, 15, 20, 15, 10, 5, 0)
    closed_orbit = [10 / 3, 20 / 3, 10, 10 + 5 / 3, 10 + 10 / 3, 15]  # up from the last view's 0
    assert orbit.elevations_deg[:6] == pytest.approx(closed_orbit)


@pytest.mark.parametrize(("num_keys", "num_frames"), [(2, 21), (4, 14), (5, 21), (20, 21), (21, 21)])
def test_key_elevations_are_interpolated_around_the_closed_orbit(num_keys, num_frames):
    keys = np.random.default_rng(num_keys).uniform(-90, 90, num_keys)
    expected = np.interp(
        np.arange(1, num_frames + 1) / num_frames, np.arange(1, num_keys + 1) / num_keys, keys, period=1
    )
    orbit = make_orbit(num_frames, keys)
    assert orbit.elevations_deg == pytest.approx(expected)
    assert orbit.elevations_deg[-1] == keys[-1]


def test_an_angle_per_frame_is_kept_as_given():
    azimuths = (350.0, -20.0, 725.0, 0.0, 90.0)
    orbit = make_orbit(5, 0, azimuths)
    assert orbit.azimuths_deg == azimuths
    assert orbit.azimuths_rad == pytest.approx(np.radians([260, 250, 275, 270, 0]))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([90, 180, 270, 360], [45, 90, 135, 180, 225, 270, 315, 0]),  # once round, forwards
        ([270, 180, 90, 0], [315, 270, 225, 180, 135, 90, 45, 0]),  # once round, backwards
        ([180, 360], [45, 90, 135, 180, 225, 270, 315, 0]),  # two half turns: forwards
        ([20, 340], [350, 0, 10, 20, 10, 0, 350, 340]),  # to and fro across 0
        ([30], [30] * 8),
    ],
)
def test_key_azimuths_go_the_shorter_way_round(keys, expected):
    azimuths = make_orbit(8, azimuths_deg=keys).azimuths_deg
    assert np.mod(azimuths, 360) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("elevations", "azimuths", "told"),
    [
        ([1.0] * 6, None, "elevations_deg has 6 angles for 5 frames"),
        (10, range(6), "azimuths_deg has 6 angles for 5 frames"),
        ([], None, "elevations_deg has 0 angles"),
        (10, [], "azimuths_deg has 0 angles"),
        (math.nan, None, "elevations_deg has nan"),
        ([0, math.inf], None, "elevations_deg has inf"),
        (10, [0, -math.inf], "azimuths_deg has -inf"),
        ([0, 90.5], None, "elevations_deg has 90.5"),
        (-91, None, "elevations_deg has -91"),
        ("10", None, "elevations_deg is the text '10'"),
        (["high"], None, "elevations_deg is ['high']"),
        (None, None, "elevations_deg is None"),
    ],
)
def test_bad_angles_are_refused_in_one_line(elevations, azimuths, told):
    with pytest.raises(UserError) as error:
        make_orbit(5, elevations, azimuths)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
