import numpy as np
import pytest

from sgm.data.camera_moves import Motion
from sgm.data.photographs import HELD_OUT, load_photograph
from sgm.evaluation import enhancement
from sgm.evaluation.enhancement import TrueClip, degraded, enlarged, evaluate_enhancement, photograph_layer, seen
from sgm.evaluation.generators import unit_range

SIZE = 64


def small_clips() -> list[TrueClip]:
    layer = photograph_layer(HELD_OUT[0], SIZE)
    motions = {False: Motion(pan_x=0.02), True: Motion(pan_y=0.02)}
    return [TrueClip(f"{subject}", subject, seen([layer], motion, 4, SIZE)) for subject, motion in motions.items()]


def test_a_true_clip_starts_with_the_photographs_own_pixels():
    first = seen([photograph_layer(HELD_OUT[0], SIZE)], Motion(pan_x=0.02), 2, SIZE)[0]
    picture = np.asarray(load_photograph(HELD_OUT[0]))
    top, left = (picture.shape[0] - SIZE) // 2, (picture.shape[1] - SIZE) // 2
    assert np.abs(first.astype(int) - picture[top : top + SIZE, left : left + SIZE]).max() <= 1


def test_there_are_clips_with_and_without_subjects_of_each_photograph():
    clips = list(enhancement.true_clips(num_frames=1, size=SIZE))
    assert len({clip.name for clip in clips}) == len(clips) == 7 * len(HELD_OUT)
    assert sum(clip.has_subject for clip in clips) == 2 * len(HELD_OUT)
    assert all(clip.frames.shape == (1, SIZE, SIZE, 3) for clip in clips)


def test_a_clip_loses_ever_more_as_a_small_models_does():
    still = seen([photograph_layer(HELD_OUT[0], SIZE)], Motion(), 6, SIZE)
    poor = degraded(still, seed=0)
    assert poor.shape == (6, SIZE // 2, SIZE // 2, 3)
    assert np.array_equal(poor, degraded(still, seed=0))
    errors = np.square(unit_range(enlarged(poor, (SIZE, SIZE))) - unit_range(still)).mean((1, 2, 3))
    assert errors[-1] > 1.3 * errors[0]
    assert 0.3 < np.abs(np.diff(poor.mean((1, 2, 3)))).mean() < 2


def test_what_gives_the_truth_back_scores_as_the_truth_and_bicubic_as_itself():
    clips = small_clips()
    truths = iter(clips)
    perfect = evaluate_enhancement(lambda chunks, picture: [next(truths).frames], clips)
    assert perfect.scores["enhanced, camera motion"]["psnr_db"] == 100
    assert perfect.scores["enhanced, moving subjects"]["ssim"] == pytest.approx(1)
    true, given = perfect.scores["true clips, moving subjects"], perfect.scores["enhanced, moving subjects"]
    assert given["flicker_levels"] == true["flicker_levels"]
    plain = evaluate_enhancement(lambda chunks, picture: (enlarged(chunk, (SIZE, SIZE)) for chunk in chunks), clips)
    assert plain.scores["enhanced, camera motion"]["worst_gain_db"] == pytest.approx(0)
    assert plain.scores["bicubic, camera motion"]["psnr_db"] < 40
    assert "least gain" in plain.table()
