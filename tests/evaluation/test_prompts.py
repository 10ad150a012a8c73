"""The measure of prompts, on rendered clips whose motion is known."""

import numpy as np
import pytest

from sgm.data.captions import Script
from sgm.evaluation.prompts import MOTIONS, evaluate_prompts, measured_motion, true_clip


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_dominant_motion_of_true_clips_is_found(motion: str) -> None:
    found = [measured_motion(true_clip(seed, Script(camera=motion), 320, 192, 14)) for seed in range(6)]
    assert [clip.dominant for clip in found] == [motion] * 6
    if motion != "still":
        assert [clip.along(motion) for clip in found] == pytest.approx([2.6] * 6, abs=0.3)


def test_a_subject_that_walks_alone_is_no_camera_motion() -> None:
    clip = true_clip(7, Script("still", "robot", "left", "fast"), 320, 192, 14)
    assert measured_motion(clip).dominant == "still"


def test_a_maker_that_ignores_prompts_is_found_out() -> None:
    pictures = [true_clip(seed, Script(), 160, 96, 1)[0] for seed in range(2)]

    def pans_right(picture: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        return np.stack([np.roll(picture, -number, axis=1) for number in range(6)])

    result = evaluate_prompts(pans_right, pictures, seeds=3)
    assert result.obeyed == pytest.approx(1 / 9)
    assert result.of_each["right"] == 1
    assert result.opposite == 0
    assert result.spread == pytest.approx(1 / 9)
