"""Likeness of pictures, and how well one quantity follows another: small functions of arrays.

Pictures are float arrays in [0, 1]; a view is a picture (H, W, 3), views are (T, H, W, 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.float32]

PSNR_OF_EQUAL_DB = 100.0  # in place of infinity, so that means and JSON stay finite


def psnr_of_error(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB, -10 log10(error), of pictures in [0, 1]; at most `PSNR_OF_EQUAL_DB`."""
    lowest = 10 ** (-PSNR_OF_EQUAL_DB / 10)
    return -10 * math.log10(max(mean_squared_error, lowest))


def psnr(first: Pictures, second: Pictures) -> float:
    """PSNR in dB between two arrays of the same shape, from the mean squared error over all their values."""
    assert first.shape == second.shape, (first.shape, second.shape)
    return psnr_of_error(float(np.square(first.astype(np.float64) - second).mean()))


def ssim(first: Pictures, second: Pictures) -> float:
    """Structural similarity of two pictures (H, W, 3), at most 1: the mean of the channels, by scikit-image.

    With the Gaussian window of 11 pixels (sigma 1.5) and the covariance of Wang et al. 2004.
    """
    from skimage.metrics import structural_similarity

    similarity = structural_similarity(
        first, second, data_range=1.0, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(similarity)


def squared_errors(views: Pictures, truth: Pictures) -> NDArray[np.float64]:
    """Mean squared error (T, T) of each of the views (row) to each true view (column)."""
    return np.stack([np.square(truth.astype(np.float64) - view).mean(axis=(1, 2, 3)) for view in views])


def nearest_is_own(errors: NDArray[np.float64]) -> NDArray[np.bool_]:
    """For each view, whether no true view is nearer to it than its own, from errors (T, T).

    True views that look the same, as those of a ball do, are equally near and all count as right.
    """
    right: NDArray[np.bool_] = errors.diagonal() <= errors.min(axis=1)
    return right


def rank_correlation(settings: Sequence[float], measured: Sequence[float]) -> float:
    """Spearman's rank correlation in [-1, 1]; 0 if the measured values never change."""
    from scipy.stats import spearmanr

    if min(measured) == max(measured):
        return 0.0
    return float(spearmanr(settings, measured).statistic)
