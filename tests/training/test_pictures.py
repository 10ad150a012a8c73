"""The excerpts of clips that a step sees, against clips rendered from the start as the excerpt says."""

import numpy as np
import pytest

from sgm.config import load_config
from sgm.training import pictures
from sgm.training.objects import HELD_OUT_SEED, random_object, render_orbit
from sgm.training.pictures import over_white, training_orbit, training_scene


@pytest.mark.parametrize("num_frames", [3, 21])
def test_an_orbit_excerpt_is_the_orbit_as_seen_from_its_input(num_frames: int) -> None:
    """Whatever the input, the object rendered at the azimuths that are told shows the frames that are shown."""
    clip = training_orbit(3, 32, 21, seed=7)
    obj = random_object(pictures._mix(3, 7) % HELD_OUT_SEED)
    first_azimuths = np.degrees(clip.scalars["azimuth_rad"])
    inputs = set()
    for draw in range(6):
        excerpt = pictures.orbit_excerpt(clip, num_frames, np.random.default_rng(draw))
        inputs.add(excerpt.input_frame)
        assert len(set(excerpt.frames.tolist())) == num_frames
        azimuths = np.degrees(excerpt.scalars["azimuth_rad"]) + first_azimuths[excerpt.input_frame]
        elevations = 90 - np.degrees(excerpt.scalars["polar_rad"])
        truth = over_white(render_orbit(obj, elevations, azimuths, 32)).astype(int)
        assert np.abs(truth - clip.frames[excerpt.frames]).mean() < 0.1
        # In their order around the object, which ends at the input as a sampled orbit does.
        turn = (excerpt.frames - excerpt.input_frame - 1) % 21
        assert (np.diff(turn) > 0).all()
        if num_frames == 21:
            assert excerpt.frames[-1] == excerpt.input_frame
            assert excerpt.scalars["azimuth_rad"][-1] == 0
    assert len(inputs) > 2


def test_a_scene_excerpt_is_consecutive_and_starts_at_its_input() -> None:
    clip = training_scene(0, 32, load_config("svd_tiny").num_frames, seed=1)
    directions, starts = set(), set()
    for draw in range(20):
        excerpt = pictures.scene_excerpt(clip, 5, np.random.default_rng(draw))
        assert len(excerpt.frames) == 5
        assert excerpt.frames[0] == excerpt.input_frame
        steps = np.diff(excerpt.frames)
        assert (steps == steps[0]).all()
        directions.add(int(steps[0]))
        starts.add(excerpt.input_frame)
        assert excerpt.scalars == clip.scalars
    assert directions == {1, -1}
    assert len(starts) > 5
