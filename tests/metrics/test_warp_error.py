"""The motion-aware warp error against the original's numbers, and on motion that is known."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from sgm.metrics.warp_error import motion_aware_warp_error, splat, warp_error
from tests.small_models import DATA


@pytest.fixture(scope="module")
def golden():
    """What the original computed of three pairs, the last of which stands still."""
    return load_file(DATA / "goldens" / "mawe.safetensors")


@pytest.fixture(scope="module")
def pairs(golden):
    """Frames in [0, 1], channels last, and flows of rows then columns, as this project has them."""
    left, right = (golden[name].transpose(0, 2, 3, 1) / np.float32(255) for name in ("left", "right"))
    return list(zip(left, right, golden["flow"][:, ::-1], strict=True))


def test_the_splat_is_the_original_one(golden, pairs):
    for number, (left, _, flow) in enumerate(pairs):
        moved, known = splat(left, flow)
        np.testing.assert_allclose(moved.transpose(2, 0, 1) * 255, golden["warped"][number], atol=1e-4)
        np.testing.assert_array_equal(~known, golden["unknown"][number].astype(bool))


def test_the_errors_are_the_original_ones(golden, pairs):
    for number, pair in enumerate(pairs):
        assert warp_error(*pair) == pytest.approx(golden["warp_error"][number], rel=1e-4, abs=1e-6)
        found = motion_aware_warp_error(np.stack(pair[:2]), pair[2][None])
        length = golden["mean_flow"][number]
        if length:
            expected = golden["warp_error"][number] / (9.5 * length)
            assert (found.value, found.moving_pairs) == (pytest.approx(expected, rel=1e-4), 1)
        else:
            assert (found.value, found.still_pairs) == (None, 1)


def test_still_pairs_are_counted_apart():
    random = np.random.default_rng(0)
    picture = random.random((16, 16, 3), dtype=np.float32)
    frames = np.stack([picture, np.roll(picture, 2, axis=1), np.roll(picture, 2, axis=1), picture])
    flow = np.zeros((3, 2, 16, 16), np.float32)
    flow[0, 1], flow[2, 1] = 2, 2  # what is said to move on has moved back
    found = motion_aware_warp_error(frames, flow)
    assert (found.moving_pairs, found.still_pairs) == (2, 1)
    wrong = np.mean(np.square(255 * (np.roll(picture, 4, axis=1) - picture)[:, 2:].astype(np.float64)))
    assert found.value == pytest.approx((0 + wrong / (9.5 * 2)) / 2, rel=1e-5)


def test_what_leaves_the_picture_counts_for_nothing():
    picture = np.full((4, 4, 3), 0.5, np.float32)
    assert warp_error(picture, 1 - picture / 2, np.full((2, 4, 4), 9, np.float32)) == 0
