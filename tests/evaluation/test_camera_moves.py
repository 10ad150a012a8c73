from dataclasses import replace

import numpy as np
import pytest

from sgm.config import load_config
from sgm.data.camera_moves import WIDTHS_PER_SECOND_PER_BUCKET
from sgm.evaluation.camera_moves import BUCKET_SWEEP, FPS_SWEEP, evaluate_scenes, held_out_picture, true_clip

CONFIG = replace(load_config("svd_tiny"), num_frames=3, width=64, height=64)
NUM_PANNED = 7


def pan(picture, motion_bucket_id, fps_id, **_):
    """The picture that goes to the right as far as the settings say, wrapped around."""
    pixels = WIDTHS_PER_SECOND_PER_BUCKET * motion_bucket_id / fps_id * picture.shape[1]
    waves = np.exp(-2j * np.pi * np.fft.fftfreq(picture.shape[1]) * pixels)[:, None]
    spectrum = np.fft.fft(picture, axis=1)
    return np.stack([np.fft.ifft(spectrum * waves**time, axis=1).real.astype(np.float32) for time in range(NUM_PANNED)])


def test_a_generator_that_does_as_told_follows_both_settings():
    report = evaluate_scenes(pan, lambda frames: frames, replace(CONFIG, num_frames=NUM_PANNED), 1)
    scores = report.scores["generated"]
    assert scores["first_frame_psnr_db"] == 100
    assert scores["bucket_correlation"] == scores["bucket_correlation_each"] == pytest.approx(1)
    assert scores["fps_correlation"] == scores["fps_correlation_each"] == pytest.approx(-1)
    for bucket in (80, 115, 250):  # 10 and 45 move less than the estimator can tell
        percent = 100 * WIDTHS_PER_SECOND_PER_BUCKET * bucket / 6
        assert scores[f"flow_percent_{bucket}_6"] == pytest.approx(percent, rel=0.25)
    assert report.scores["true clips"]["bucket_correlation"] > 0.9
    assert report.scores["input through the autoencoder"] == {"first_frame_psnr_db": 100}
    assert len(report.details) == len(BUCKET_SWEEP) + len(FPS_SWEEP)


def test_a_generator_that_stands_still_follows_nothing():
    asked = []

    def stand_still(picture, **sampling):
        asked.append(sampling)
        return np.repeat(picture[None] * 0.9, 3, axis=0)

    scores = evaluate_scenes(stand_still, lambda frames: frames, CONFIG, 2).scores["generated"]
    assert scores["first_frame_psnr_db"] < 40
    assert scores["flicker_levels"] == pytest.approx(0, abs=1e-3)
    assert scores["bucket_correlation"] == scores["fps_correlation"] == 0
    assert {sampling["seed"] for sampling in asked} == {0, 1}
    assert len({sampling["motion_bucket_id"] for sampling in asked if sampling["fps_id"] == 6}) >= 6


def test_pictures_are_the_held_out_photographs_then_scenes():
    pictures = [held_out_picture(number, CONFIG) for number in range(5)]
    assert {picture.shape for picture in pictures} == {(64, 64, 3)}
    assert all(0 <= picture.min() < picture.max() <= 1 for picture in pictures)
    camera_man = pictures[2]
    np.testing.assert_allclose(camera_man[..., 0], camera_man[..., 2], atol=0.01)


def test_true_clips_are_those_of_held_out_scenes():
    fast = true_clip(1, CONFIG, BUCKET_SWEEP[-1])
    assert fast.shape == (3, 64, 64, 3)
    assert fast.dtype == np.float32
    assert np.abs(np.diff(fast, axis=0)).mean() > np.abs(np.diff(true_clip(1, CONFIG, BUCKET_SWEEP[0]), axis=0)).mean()
