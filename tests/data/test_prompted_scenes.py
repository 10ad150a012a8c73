"""Prompted scenes move as their scripts and settings say, and captions word the scripts."""

import numpy as np
import pytest
import torch

from sgm.config import load_config
from sgm.data.captions import CAMERA_MOTIONS, SUBJECT_MOTIONS, Script, caption, random_script, words_in
from sgm.data.clips import training_clip
from sgm.data.prompted_scenes import Picture, camera_motion, mean_radius, prompted_scene, subject_of
from sgm.models.words import WORDS, read_prompt

KINDS = ("", "car", "house", "robot", "rocket", "boat", "creature", "balloon")


def captions(held_out: bool, count: int) -> set[str]:
    rng = np.random.default_rng(3)
    return {caption(rng, random_script(rng, str(rng.choice(KINDS))), held_out) for _ in range(count)}


def test_held_out_wordings_are_never_trained_on() -> None:
    trained, held_out = captions(False, 20000), captions(True, 20000)
    assert len(trained) > 5000
    assert len(held_out) > 5000
    assert not trained & held_out


def test_the_encoder_knows_every_word_that_is_trained_on() -> None:
    assert len(set(WORDS)) == len(WORDS) <= load_config("svd_tiny_next").text.words
    assert {word for text in captions(False, 20000) for word in words_in(text)} <= set(WORDS)
    assert read_prompt("Please pan left, Camera").unknown == ("please",)
    assert read_prompt("camera pan left").numbers == tuple(1 + WORDS.index(word) for word in ("camera", "pan", "left"))


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("motion", CAMERA_MOTIONS)
def test_a_caption_never_names_the_opposite_motion(motion: str, held_out: bool) -> None:
    opposite = {"left": {"right", "rightwards"}, "right": {"left", "leftwards"}, "up": {"down", "sinks"}}
    opposite |= {"down": {"up", "rises"}, "in": {"out", "away", "back"}, "out": {"in", "closer"}}
    opposite |= {
        "clockwise": {"anticlockwise", "left", "counter"},
        "anticlockwise": {"right"},
        "still": {"pan", "zoom"},
    }
    rng = np.random.default_rng(1)
    for _ in range(300):
        assert not set(words_in(caption(rng, Script(camera=motion), held_out))) & opposite[motion]


def test_a_scenes_motion_does_not_follow_from_its_picture() -> None:
    """Another script changes what happens after the first frame, and not the backdrop that it shows."""
    seed = next(seed for seed in range(99) if not subject_of(seed))
    clips = [
        prompted_scene(seed, np.arange(14), 160, 96, 255, 3, script=Script(camera=motion)).frames
        for motion in ("left", "right")
    ]
    assert clips[0].shape == (14, 96, 160, 3)
    np.testing.assert_array_equal(clips[0][0], clips[1][0])
    assert np.abs(clips[0][13].astype(int) - clips[1][13]).mean() > 5


@pytest.mark.parametrize("motion", [motion for motion in CAMERA_MOTIONS if motion != "still"])
def test_every_motion_moves_the_picture_by_the_same_length(motion: str) -> None:
    aspect, step = 0.6, 1e-4
    first, second = camera_motion(motion, step, aspect).frame_to_scene(2).astype(float)
    x, y = np.meshgrid((np.arange(100) + 0.5) / 100 - 0.5, aspect * ((np.arange(60) + 0.5) / 60 - 0.5))
    moved = (second - first) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    assert np.hypot(*moved).mean() == pytest.approx(step, rel=0.02)
    assert mean_radius(1.0) == pytest.approx((np.sqrt(2) + np.arcsinh(1)) / 6, rel=1e-3)


def test_the_default_strength_moves_a_clip_by_2_6_percent_of_the_width() -> None:
    """And a clip of twice the frame rate by half of that."""
    seed = next(seed for seed in range(99) if not subject_of(seed))
    shown = prompted_scene(seed, np.arange(14), 320, 192, 127, 6, script=Script(camera="right")).frames
    half = prompted_scene(seed, np.arange(14), 320, 192, 127, 12, script=Script(camera="right")).frames
    grey = [clip.mean(axis=3) for clip in (shown, half)]
    errors = [
        [np.abs(clip[13][20:-20, 20:-20] - clip[0][20:-20, 20 + shift : 300 + shift]).mean() for shift in range(16)]
        for clip in grey
    ]
    assert [int(np.argmin(row)) for row in errors] == [8, 4]  # pixels: 2.6 % and 1.3 % of 320


@pytest.mark.parametrize("motion", SUBJECT_MOTIONS)
def test_a_subject_goes_where_its_script_says(motion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []
    seen = Picture.seen

    def watch(picture: Picture, *more: object) -> torch.Tensor:
        result = seen(picture, *more)  # type: ignore[arg-type]
        if result.shape[1] == 4:
            for frame in result[[0, -1], 3].numpy():
                rows, columns = np.nonzero(frame > 0.5)
                places.append((columns.mean(), rows.mean()))
        return result

    monkeypatch.setattr(Picture, "seen", watch)
    for seed in [seed for seed in range(30) if subject_of(seed)][:5]:
        prompted_scene(seed, np.arange(4), 160, 96, 255, 2, script=Script("still", subject_of(seed), motion))
    (dx, dy) = np.mean(np.array(places[1::2]) - np.array(places[::2]), axis=0)
    assert max(abs(dx), abs(dy)) > 1
    assert {"left": dx < 0, "right": dx > 0, "up": dy < 0, "down": dy > 0}[motion]


def test_a_training_clip_has_the_versions_shape_and_a_lower_rate_where_it_leaves_out_frames() -> None:
    config = load_config("svd_tiny_next")
    whole = training_clip("prompted_scenes", 4, 96, config, 1)
    some = training_clip("prompted_scenes", 4, 96, config, 1, num_frames=3)
    assert whole.frames.shape == (14, 96, 160, 3)
    assert some.frames.shape == (3, 96, 160, 3)
    assert some.script == whole.script is not None
    stride = whole.scalars["fps_id"] / some.scalars["fps_id"]  # type: ignore[operator]
    assert stride == pytest.approx(round(stride))
    np.testing.assert_array_equal(some.frames[0].shape, whole.frames[0].shape)
