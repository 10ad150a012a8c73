import numpy as np
import pytest

from sgm.data.camera_moves import MEAN_RADIUS, Motion
from sgm.data.photographs import HELD_OUT
from sgm.enhance.details import LUMINANCE
from sgm.enhance.tracking import Follower, grid, inside, resized, wholeness
from sgm.evaluation.enhancement import degraded, photograph_layer, seen, subject_layer

SIZE = 192
MOTIONS = {
    "pan": Motion(pan_x=0.01, pan_y=-0.006),
    "zoom out": Motion(zoom=-0.01 / MEAN_RADIUS),
    "roll": Motion(roll=0.01 / MEAN_RADIUS),
    "fast": Motion(pan_x=-0.03, zoom=0.01 / MEAN_RADIUS, roll=0.005 / MEAN_RADIUS),
}


def true_flow(motion: Motion, frame: int) -> np.ndarray:
    """Where each pixel of a frame lies in the first one, from the camera's own matrices."""
    matrix = motion.frame_to_scene(frame + 1)[frame]
    pixels = grid(SIZE, SIZE)
    return (((pixels + 0.5) / SIZE - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5) * SIZE - 0.5 - pixels


def sights(clip: np.ndarray) -> list:
    """How the frames of a true clip, degraded, see its first one."""
    poor = degraded(clip, seed=0)
    follower = Follower(clip[0].astype(np.float32) @ LUMINANCE, (SIZE // 2, SIZE // 2))
    return [follower.follow(resized(frame, (SIZE, SIZE)) @ LUMINANCE) for frame in poor]


@pytest.mark.parametrize("name", MOTIONS)
def test_a_camera_is_followed_to_a_fraction_of_a_pixel(name):
    """Blur, noise and flat places included, and after eight frames as after one."""
    motion = MOTIONS[name]
    found = sights(seen([photograph_layer(HELD_OUT[0], SIZE)], motion, 8, SIZE))
    for frame, sight in enumerate(found):
        true = true_flow(motion, frame)
        errors = np.hypot(*np.moveaxis(sight.flow - true, 2, 0))[inside(true) == 1]
        assert np.median(errors) < 0.6
        assert np.percentile(errors, 90) < 1.4


def test_a_subject_and_its_scene_are_followed_each_in_its_own_way():
    motion, last = Motion(pan_x=0.004), 7
    subject = subject_layer("cut-out", 1, SIZE)
    clip = seen([photograph_layer(HELD_OUT[0], SIZE), subject], motion, last + 1, SIZE)
    flow = sights(clip)[last].flow
    assert np.median(flow[:40], axis=(0, 1)) == pytest.approx(true_flow(motion, last)[0, 0], abs=0.4)
    step = motion.pan_x - subject.drift * motion.mean_length()  # from a frame to the one before
    x = round((0.5 + subject.centre_x - step * last) * SIZE)
    y = round((0.5 + subject.centre_y) * SIZE)
    assert np.median(flow[y - 10 : y + 10, x - 10 : x + 10], axis=(0, 1)) == pytest.approx(
        [step * last * SIZE, 0], abs=1
    )


def test_other_pictures_are_not_followed_and_the_picture_is_found_again():
    motion = MOTIONS["pan"]
    clip, other = (seen([photograph_layer(photograph, SIZE)], motion, 6, SIZE) for photograph in HELD_OUT[::2])
    found = sights(np.concatenate([clip[:3], other[:2], clip[4:]]))
    assert [sight is None for sight in found] == [False, False, False, True, True, False, False]
    assert np.median(found[-1].flow - true_flow(motion, 5), axis=(0, 1)) == pytest.approx([0, 0], abs=0.2)


def test_the_blur_of_a_clip_is_found():
    clip = seen([photograph_layer(HELD_OUT[0], SIZE)], Motion(), 14, SIZE)
    blurs = [sight.blur for sight in sights(clip)]
    assert blurs == sorted(blurs)
    assert blurs[-1] > blurs[0] + 0.8


def test_a_flow_tears_where_neighbours_go_apart():
    turning = true_flow(MOTIONS["roll"], 5)
    assert wholeness(turning).min() > 0.95
    turning[:, SIZE // 2 :] += (0, 5)
    torn = wholeness(turning)
    assert torn[:, SIZE // 2].max() < 0.3
    assert torn[:, : SIZE // 2 - 12].min() > 0.95
