import numpy as np
import pytest

from sgm.outputs.provenance import Provenance


@pytest.fixture(scope="session")
def small_clip():
    """Five frames of 64x96 pixels with colours that move: uint8 (T, H, W, 3)."""
    y, x = np.mgrid[0:64, 0:96]
    frames = [np.stack([2 * x + 5 * t, 3 * y, 255 - x - y], axis=-1) for t in range(5)]
    return np.clip(frames, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def provenance():
    return Provenance("sgm 1.2.3", "svd_tiny")
