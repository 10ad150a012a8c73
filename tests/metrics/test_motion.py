import numpy as np
import pytest
import torch

from sgm.data.camera_moves import MEAN_RADIUS, WIDTHS_PER_SECOND_PER_BUCKET, Layer, Motion, scene_clip
from sgm.data.photographs import HELD_OUT, load_photograph
from sgm.evaluation.generators import unit_range
from sgm.metrics.motion import flicker_levels, flow_percent, optical_flow

SIZE = 128


def photograph_clip(motion: Motion, num_frames: int = 4) -> np.ndarray:
    """The coffee photograph under a camera motion, twice as wide as the frame."""
    picture = unit_range(np.asarray(load_photograph(HELD_OUT[0])))
    layer = Layer(torch.from_numpy(picture.transpose(2, 0, 1).copy()), 1.0, 2 / 3)
    return layer.frames(motion, 0, num_frames, SIZE).clamp(0, 1).permute(0, 2, 3, 1).contiguous().numpy()


@pytest.mark.parametrize("percent", [0.1, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("kind", ["pan", "zoom", "roll"])
def test_flow_is_as_long_as_the_known_displacement(kind, percent):
    step = percent / 100
    motions = {
        "pan": Motion(pan_x=0.6 * step, pan_y=-0.8 * step),
        "zoom": Motion(zoom=step / MEAN_RADIUS),
        "roll": Motion(roll=step / MEAN_RADIUS),
    }
    measured = flow_percent(optical_flow(photograph_clip(motions[kind])))
    assert measured == pytest.approx(percent, rel=0.25)


def test_flow_points_where_the_picture_goes():
    """The camera goes right and up by 2 and 1 pixels, so the picture goes left and down."""
    flow = optical_flow(photograph_clip(Motion(pan_x=2 / SIZE, pan_y=-1 / SIZE)))
    assert flow.shape == (3, 2, SIZE, SIZE)
    assert np.median(flow, axis=(0, 2, 3)) == pytest.approx([1, -2], abs=0.1)


@pytest.mark.parametrize(("seed", "longest"), [(0, 2.8), (1, 1.3), (2, 1.3), (3, 1.3), (6, 1.7)])
def test_flow_of_a_scene_is_about_as_long_as_its_motion_and_does_not_run_away(seed, longest):
    """Scene 0 has a smooth sky over stripes, where the picture hardly tells how far it moves."""
    percent_a_second, fps = 4.8, 9
    bucket = percent_a_second / 100 / WIDTHS_PER_SECOND_PER_BUCKET
    clip = unit_range(scene_clip(seed, 14, SIZE, bucket, fps, held_out=True))
    lengths = np.hypot(*np.moveaxis(optical_flow(clip), 1, 0)).mean(axis=(1, 2)) / SIZE * 100
    displacement = percent_a_second / fps
    assert lengths.min() > 0.9 * displacement
    assert lengths.max() < longest * displacement


def test_flicker_of_a_still_clip_is_the_change_of_its_brightness():
    still = np.repeat(photograph_clip(Motion(), 1), 4, axis=0) * 0.8
    no_flow = np.zeros((3, 2, SIZE, SIZE), np.float32)
    blinking = still + np.array([0, 0.04, 0, 0.04], np.float32).reshape(4, 1, 1, 1)
    assert flicker_levels(still, no_flow) == pytest.approx(0, abs=1e-6)
    assert flicker_levels(blinking, no_flow) == pytest.approx(0.04 * 255, rel=1e-3)


def test_flicker_leaves_out_motion_and_sees_what_blinks():
    moving = photograph_clip(Motion(pan_x=3 / SIZE, pan_y=1 / SIZE)) * 0.8
    blinking = moving + np.array([0, 0.04, 0, 0.04], np.float32).reshape(4, 1, 1, 1)
    plain_difference = np.abs(np.diff(moving, axis=0)).mean() * 255
    flow = optical_flow(moving)
    assert flicker_levels(moving, flow) < plain_difference / 3
    assert flicker_levels(blinking, flow) > flicker_levels(moving, flow) + 7
