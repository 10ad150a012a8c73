"""The excerpts of clips that a step sees, against clips rendered from the start as the excerpt says."""

import numpy as np
import pytest

from sgm.config import load_config
from sgm.data import clips
from sgm.data.camera_moves import scene_clip
from sgm.data.clips import over_white, training_orbit, training_scene
from sgm.data.objects import HELD_OUT_SEED, random_object, render_orbit


@pytest.mark.parametrize("num_frames", [3, 21])
def test_an_orbit_excerpt_is_the_orbit_as_seen_from_its_input(num_frames: int) -> None:
    """Whatever the input, the object rendered at the azimuths that are told shows the frames that are shown."""
    clip = training_orbit(3, 32, 21, seed=7)
    obj = random_object(clips._mix(3, 7) % HELD_OUT_SEED)
    first_azimuths = np.degrees(clip.scalars["azimuth_rad"])
    inputs = set()
    for draw in range(6):
        excerpt = clips.orbit_excerpt(clip, num_frames, np.random.default_rng(draw))
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


@pytest.mark.parametrize(("num_frames", "strides"), [(5, {1, 2, 3}), (7, {1, 2}), (14, {1})])
def test_a_scene_excerpt_starts_at_the_input_and_is_slower_by_the_frames_it_leaves_out(
    num_frames: int, strides: set[int]
) -> None:
    clip = training_scene(0, 32, load_config("svd_tiny").num_frames, seed=1)
    used = set()
    for draw in range(40):
        excerpt = clips.scene_excerpt(clip, num_frames, np.random.default_rng(draw))
        assert len(excerpt.frames) == num_frames
        assert excerpt.frames[0] == excerpt.input_frame == 0
        (stride,) = set(np.diff(excerpt.frames))
        used.add(int(stride))
        rate = excerpt.scalars["fps_id"] * stride
        assert excerpt.scalars | {"fps_id": pytest.approx(rate)} == clip.scalars
    assert used == strides


def test_a_scene_of_twice_the_speed_is_told_by_half_its_motion_bucket() -> None:
    config = load_config("svd_tiny")
    plain, fast = (clips.training_clip("scenes", 5, 32, config, 2, speed) for speed in (1.0, 2.0))
    assert fast.scalars == plain.scalars
    bucket, fps_id = fast.scalars["motion_bucket_id"], fast.scalars["fps_id"]
    scenes = [scene_clip(clips._mix(5, 2), 14, 32, strength * bucket, fps_id) for strength in (1, 2)]
    assert [np.array_equal(clip.frames, frames) for clip, frames in zip((plain, fast), scenes, strict=True)] == [
        True
    ] * 2
    assert np.abs(plain.frames.astype(int) - fast.frames).mean() > 1
