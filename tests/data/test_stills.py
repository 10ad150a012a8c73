"""The stills that the autoencoder learns from, kind by kind."""

import numpy as np
import pytest
from PIL import Image

from sgm.data import stills
from sgm.data.illustrations import illustration, line_drawing, night
from sgm.data.photographs import HELD_OUT, TRAINING


def drawn(draw, seeds: range) -> np.ndarray:
    return np.stack([draw(np.random.default_rng(seed), 64) for seed in seeds])


@pytest.mark.parametrize("draw", [illustration, line_drawing, night])
def test_a_drawing_is_a_function_of_its_seed(draw) -> None:
    pictures = drawn(draw, range(6))
    assert pictures.shape == (6, 64, 64, 3)
    assert 0 <= pictures.min() < pictures.max() <= 1
    np.testing.assert_array_equal(pictures, drawn(draw, range(6)))
    assert len({picture.tobytes() for picture in pictures}) == 6


def test_nights_are_dark_with_lights_and_illustrations_are_flat_and_vivid() -> None:
    nights, flat = drawn(night, range(20)), drawn(illustration, range(20))
    assert np.median(nights) < 0.15
    assert nights.max(axis=(1, 2, 3)).mean() > 0.7
    steps = np.abs(np.diff(flat, axis=2)).max(axis=3)
    assert (steps < 0.01).mean() > 0.8
    assert (steps > 0.1).any(axis=(1, 2)).mean() > 0.9
    assert (flat.max(axis=3) - flat.min(axis=3)).mean() > 0.2


def test_held_out_photographs_never_train(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = set()

    def load(photograph) -> Image.Image:
        opened.add(photograph)
        return Image.new("RGB", (640, 400), "teal")

    monkeypatch.setattr(stills, "load_photograph", load)
    monkeypatch.setattr("sgm.data.camera_moves.load_photograph", load)
    for seed in range(150):
        assert stills.varied_still(seed, 32).shape == (32, 32, 3)
    assert opened == set(TRAINING)
    opened.clear()
    for seed in range(80):
        stills.varied_still(seed, 32, held_out=True)
    assert opened == set(HELD_OUT)


def test_a_still_is_a_piece_of_a_frame_that_the_photograph_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    """Across a still of 32 pixels a ramp changes by a tenth of what it does across a frame of 320, or by less."""
    ramp = Image.fromarray(np.repeat(np.linspace(0, 255, 640).astype(np.uint8)[None], 400, 0)).convert("RGB")
    monkeypatch.setattr(stills, "load_photograph", lambda photograph: ramp)
    monkeypatch.setattr(stills, "recoloured", lambda rng, picture, photograph: picture)
    changes = []
    for seed in range(40):
        picture = stills.photograph(np.random.default_rng(seed), 32, False)
        changes.append(float(picture[:, -1].mean() - picture[:, 0].mean()))
    assert 0.095 < max(changes) < 0.105
    assert 0.04 < min(changes) < 0.055


def test_a_darkened_picture_is_dark() -> None:
    white = np.ones((40, 64, 3), np.float32)
    dark = np.stack([stills.darkened(np.random.default_rng(seed), white) for seed in range(20)])
    assert dark.shape == (20, 40, 64, 3)
    assert np.median(dark, axis=(1, 2, 3)).max() <= 0.5
