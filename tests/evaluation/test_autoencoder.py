from dataclasses import replace

import numpy as np
import pytest

from sgm.config import load_config
from sgm.evaluation.autoencoder import evaluate_autoencoder, held_out_pictures

CONFIG = replace(load_config("svd_tiny"), num_frames=2, width=96, height=64)


def test_a_perfect_copy_has_no_error() -> None:
    report = evaluate_autoencoder(lambda frames: frames, CONFIG)
    assert {"photographs", "illustrations", "line drawings", "night scenes"} < set(report.scores)
    for scores in report.scores.values():
        assert scores == {"psnr_db": 100, "least_psnr_db": 100, "colour_levels": 0}


def test_a_tint_is_found_in_levels_and_decibels() -> None:
    tint = np.array([0, 0, 5 / 255], np.float32)
    report = evaluate_autoencoder(lambda frames: frames + tint, CONFIG)
    for scores in report.scores.values():
        assert scores["colour_levels"] == pytest.approx(5, abs=0.01)
        assert scores["psnr_db"] == pytest.approx(-10 * np.log10((5 / 255) ** 2 / 3), abs=0.01)
    assert len(report.details) == sum(len(pictures) for pictures in held_out_pictures(CONFIG).values())


def test_pictures_have_the_models_size() -> None:
    for pictures in held_out_pictures(CONFIG).values():
        assert {picture.shape for picture in pictures} == {(64, 96, 3)}
        assert all(0 <= picture.min() < picture.max() <= 1 for picture in pictures)
