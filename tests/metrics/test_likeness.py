import math

import kornia
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from sgm.metrics.likeness import nearest_is_own, psnr, rank_correlation, squared_errors, ssim


@pytest.fixture
def views() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(5, 16, 16, 3)).astype(np.float32)


def test_psnr_of_a_constant_difference_has_a_closed_form(views):
    dimmed = views * 0.5
    assert psnr(dimmed, dimmed + 0.1) == pytest.approx(20, abs=1e-4)
    assert psnr(views, dimmed) == pytest.approx(peak_signal_noise_ratio(views, dimmed, data_range=1.0), abs=1e-4)


def test_psnr_of_equal_pictures_is_finite(views):
    assert psnr(views, views) == 100
    assert psnr(views, views + 1e-6) == 100


def test_ssim_of_flat_pictures_has_a_closed_form():
    dark, bright = (np.full((16, 16, 3), level, np.float32) for level in (0.3, 0.6))
    luminance = (2 * 0.3 * 0.6 + 0.01**2) / (0.3**2 + 0.6**2 + 0.01**2)
    assert ssim(dark, bright) == pytest.approx(luminance, abs=1e-5)


def test_ssim_is_that_of_kornia(views):
    for picture, strength in zip(views, (0, 0.1, 0.5, 0.9, 1), strict=True):
        distorted = (picture * (1 - strength) + views[0] * strength).astype(np.float32)
        pair = (torch.from_numpy(one).permute(2, 0, 1)[None] for one in (picture, distorted))
        expected = float(kornia.metrics.ssim(*pair, window_size=11, padding="valid").mean())
        assert ssim(picture, distorted) == pytest.approx(expected, abs=1e-5)


def test_ssim_falls_with_noise(views):
    picture = np.linspace(0, 1, 32 * 32 * 3, dtype=np.float32).reshape(32, 32, 3)
    noise = np.random.default_rng(1).normal(size=picture.shape).astype(np.float32)
    assert ssim(picture, picture) == pytest.approx(1)
    assert ssim(picture, picture + 0.01 * noise) > ssim(picture, picture + 0.1 * noise)


def test_squared_errors_are_of_each_view_to_each_truth(views):
    errors = squared_errors(views[:2], views)
    assert errors.shape == (2, 5)
    assert errors[1, 3] == pytest.approx(np.mean((views[1].astype(float) - views[3]) ** 2))


def test_views_are_right_where_their_own_truth_is_nearest(views):
    swapped = views[[1, 0, 2, 3, 4]]
    assert nearest_is_own(squared_errors(views, views)).tolist() == [True] * 5
    assert nearest_is_own(squared_errors(swapped, views)).tolist() == [False, False, True, True, True]


def test_views_that_look_the_same_are_all_right(views):
    truth = views[[0, 0, 1, 1, 2]]
    assert nearest_is_own(squared_errors(truth, truth)).all()


def test_rank_correlation_by_its_definition():
    """1 - 6 sum(d^2) / (n (n^2 - 1)) for ranks without ties."""
    measured = [0.1, 5.0, 0.3, 7.0, 6.0]  # ranks 1 3 2 5 4, so d = 0 1 1 1 1
    assert rank_correlation([10, 20, 30, 40, 50], measured) == pytest.approx(1 - 6 * 4 / (5 * 24))
    assert rank_correlation([1, 2, 3], [math.exp(-3), math.exp(-5), math.exp(-9)]) == pytest.approx(-1)


def test_what_never_changes_follows_nothing():
    assert rank_correlation([1, 2, 3], [0.5, 0.5, 0.5]) == 0
