from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sgm.config import load_config
from sgm.evaluation.__main__ import PICTURE_SUFFIXES
from sgm.evaluation.showcase import FORMATS, draw_animation, orbit_strips, save_animation, scene_strips

SV3D = replace(load_config("sv3d_tiny"), num_frames=3, width=32, height=32)
SVD = replace(load_config("svd_tiny"), num_frames=3, width=64, height=64)


def repeat(picture, **_):
    return np.repeat(picture[None], 3, axis=0)


def flat(level, *shape):
    return np.full((*shape, 8, 8, 3), level, np.float32)


def test_tiles_stand_in_rows_under_their_captions_and_play_together():
    clip = flat(0, 2)
    clip[1] = 1.0
    frames = draw_animation(["still", "clip"], [[flat(0.2), clip], [flat(0.4), clip], [flat(0.6), clip]], columns=2)
    assert len(frames) == 2
    first, second = (np.asarray(frame) for frame in frames)
    changed = np.nonzero((first != second).any(axis=2))
    assert (changed[0].max() - changed[0].min() + 1) == 128 + 8 + 128  # two rows of tiles and the gap between them
    assert len(changed[0]) == 3 * 128 * 128
    for level in (0.2, 0.4, 0.6):
        assert (first == round(level * 255)).all(axis=2).sum() >= 128 * 128


def test_strips_show_input_clip_and_truth_or_three_motions():
    captions, strips = orbit_strips(repeat, SV3D, range(2))
    assert captions == ["input", "generated", "truth"]
    assert [[tile.shape for tile in strip] for strip in strips] == [[(32, 32, 3), (3, 32, 32, 3), (3, 32, 32, 3)]] * 2
    asked = []
    captions, strips = scene_strips(lambda picture, **given: asked.append(given) or repeat(picture), SVD, range(1))
    assert captions == ["input", "motion 40", "motion 127", "motion 220"]
    assert [given["motion_bucket_id"] for given in asked] == [40, 127, 220]
    np.testing.assert_array_equal(strips[0][1][0], strips[0][0])


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".GIF"])
def test_animation_loops_and_keeps_its_frames(suffix, tmp_path):
    path = tmp_path / f"clip{suffix}"
    save_animation([Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue")], path)
    with Image.open(path) as animation:
        assert animation.n_frames == 3
        assert animation.size == (40, 30)
        assert animation.info["loop"] == 0
        animation.seek(1)
        assert animation.convert("RGB").getpixel((20, 15)) == pytest.approx((0, 255, 0), abs=8)
    assert list(tmp_path.iterdir()) == [path]


def test_every_kind_of_picture_that_may_be_asked_for_can_be_saved():
    assert set(PICTURE_SUFFIXES) == set(FORMATS)
