import tracemalloc
from itertools import count, islice

import numpy as np
import pytest
from PIL import Image

from sgm.data.camera_moves import Motion
from sgm.data.photographs import HELD_OUT, load_photograph
from sgm.enhance.details import carry_details, enlarged_size
from sgm.evaluation.enhancement import MOTIONS, degraded, enlarged, photograph_layer, seen, sharpness, subject_layer
from sgm.evaluation.generators import unit_range
from sgm.inputs.image import fit_image
from sgm.metrics.likeness import psnr

SIZE = 192


def camera_clip(motion: Motion, photograph: int = 0, num_frames: int = 7) -> np.ndarray:
    return seen([photograph_layer(HELD_OUT[photograph], SIZE)], motion, num_frames, SIZE)


def carried(poor: np.ndarray, picture: np.ndarray) -> np.ndarray:
    return np.concatenate(list(carry_details([poor], picture)))


def gains_db(made: np.ndarray, poor: np.ndarray, true: np.ndarray) -> list[float]:
    """By how much each frame is nearer to the truth than it would be bicubically enlarged."""
    plain = unit_range(enlarged(poor, (SIZE, SIZE)))
    frames = zip(unit_range(made), plain, unit_range(true), strict=True)
    return [psnr(frame, of_truth) - psnr(by_itself, of_truth) for frame, by_itself, of_truth in frames]


@pytest.mark.parametrize("name", MOTIONS)
def test_a_photograph_under_a_moving_camera_gets_its_details_back(name):
    true = camera_clip(MOTIONS[name])
    poor = degraded(true, seed=1)
    made = carried(poor, true[0])
    gains = gains_db(made, poor, true)
    assert min(gains) > 4
    assert np.mean(gains) > 8
    assert sharpness(unit_range(made[-1])) > 0.75 * sharpness(unit_range(true[-1]))


@pytest.mark.parametrize("subject", ["object", "cut-out"])
@pytest.mark.parametrize("photograph", range(len(HELD_OUT)))
def test_a_moving_subject_makes_no_clip_worse(photograph, subject):
    layers = [photograph_layer(HELD_OUT[photograph], SIZE), subject_layer(subject, photograph, SIZE)]
    true = seen(layers, MOTIONS["pan"], 10, SIZE)
    poor = degraded(true, seed=2)
    gains = gains_db(carried(poor, true[0]), poor, true)
    assert min(gains) > -1
    assert np.mean(gains[1:]) > 1


def test_after_a_cut_the_clip_remains_until_the_picture_is_back():
    true, other = camera_clip(MOTIONS["pan"]), camera_clip(MOTIONS["pan"], photograph=2)
    true[3:5] = other[3:5]
    poor = degraded(true, seed=3)
    made = carried(poor, true[0])
    assert np.abs(made[3:5].astype(int) - enlarged(poor, (SIZE, SIZE))[3:5]).max() <= 1
    assert min(np.delete(gains_db(made, poor, true), [3, 4])) > 8


def test_another_picture_leaves_the_clip_as_it_is():
    poor = degraded(camera_clip(MOTIONS["roll"]), seed=4)
    other = camera_clip(MOTIONS["roll"], photograph=1)[0]
    assert np.abs(carried(poor, other).astype(int) - enlarged(poor, (SIZE, SIZE))).max() <= 1


def test_a_sunset_that_the_model_has_invented_stays():
    true = camera_clip(MOTIONS["pan"], num_frames=10) * 0.7 + 60
    dusk = np.linspace(0, 1, 10, dtype=np.float32)[:, None, None, None] * np.array([10, 20, 40], np.float32)
    shown = (true - dusk).clip(0, 255).round().astype(np.uint8)
    made = carried(degraded(shown, seed=5), shown[0])
    off = (made.astype(np.float32) - shown).mean((1, 2))
    assert np.abs(off).max() < 4  # of 40


def test_brightness_that_trembles_is_steadied():
    true = camera_clip(MOTIONS["pan"], num_frames=10)
    poor = degraded(true, seed=5)
    trembling, left = (np.diff(clip.mean((1, 2, 3)) - true.mean((1, 2, 3))) for clip in (poor, carried(poor, true[0])))
    assert np.abs(left).mean() < 0.6 * np.abs(trembling).mean()


def test_frames_are_the_same_however_they_come():
    true = camera_clip(MOTIONS["zoom out"])
    poor = degraded(true, seed=6)
    whole = carried(poor, true[0])
    in_parts = list(carry_details(iter([poor[:1], poor[1:4], poor[4:]]), true[0]))
    assert [len(chunk) for chunk in in_parts] == [1, 3, 3]
    assert all(chunk.dtype == np.uint8 for chunk in in_parts)
    assert np.array_equal(np.concatenate(in_parts), whole)


def test_an_endless_clip_takes_the_memory_of_a_short_one():
    true = camera_clip(MOTIONS["pan"], num_frames=4)
    poor = degraded(true, seed=7)
    chunks = carry_details((poor[number % 4, None] for number in count()), true[0])
    tracemalloc.start()
    next(chunks)
    next(chunks)
    after_two = tracemalloc.get_traced_memory()[0]
    list(islice(chunks, 10))
    grown = tracemalloc.get_traced_memory()[0] - after_two
    tracemalloc.stop()
    assert grown < true[0].nbytes


@pytest.mark.parametrize("times", [1.0, 1.25, 4.0])
def test_any_enlargement_keeps_a_still_picture(times):
    size = 160, 96
    picture = load_photograph(HELD_OUT[0])
    full = fit_image(picture, enlarged_size(size, (10**4, 10**4), times))
    small = np.repeat(np.asarray(fit_image(picture, size))[None], 3, axis=0)
    made = carried(small, np.asarray(full))
    assert made.shape[1:] == (96 * times, 160 * times, 3)
    assert np.abs(made.astype(int) - np.asarray(full)).mean() < 1.5


def test_a_flat_picture_stays_flat():
    grey = np.full((2, 64, 64, 3), 77, np.uint8)
    assert np.array_equal(carried(grey, np.full((128, 128, 3), 77, np.uint8)), np.full((2, 128, 128, 3), 77))


@pytest.mark.parametrize(
    ("size", "image_size", "times", "expected"),
    [
        ((160, 96), (4000, 3000), 2, (320, 192)),
        ((160, 96), (4000, 3000), 4, (640, 384)),
        ((160, 96), (451, 300), 4, (440, 264)),  # the image has 2.8 times as many columns
        ((160, 96), (451, 300), 2, (320, 192)),
        ((128, 128), (4000, 200), 4, (192, 192)),
        ((128, 128), (100, 100), 2, (128, 128)),
    ],
)
def test_a_clip_is_never_larger_than_what_it_shows_of_the_image(size, image_size, times, expected):
    width, height = enlarged_size(size, image_size, times)
    assert (width, height) == expected
    assert width * size[1] == height * size[0]
    assert width % 2 == height % 2 == 0


def test_the_larger_picture_shows_the_same_part_of_the_image():
    image = Image.fromarray((np.indices((301, 451)).sum(0) // 3).astype(np.uint8)).convert("RGB")
    small = np.asarray(fit_image(image, (160, 96)), np.float32)
    large = fit_image(image, enlarged_size((160, 96), image.size, 2.75))
    assert large.size == (440, 264)
    again = np.asarray(large.resize((160, 96), Image.Resampling.BOX), np.float32)
    assert np.abs(again - small)[2:-2, 2:-2].max() <= 1.5
