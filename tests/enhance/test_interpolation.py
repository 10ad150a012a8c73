import subprocess
import sys
from fractions import Fraction
from itertools import count, pairwise

import cv2
import numpy as np
import pytest

from sgm.data.photographs import HELD_OUT, TRAINING, load_photograph
from sgm.enhance.flow import Motion
from sgm.enhance.interpolation import interpolate, num_interpolated
from sgm.metrics.likeness import psnr

RATES = [(30, 24), (6, 24), (7, 60), (24, 6), (25, 24), (24, 25), (6, 6), (7, 7.5), (29.97, 24), (24, 23.976), (0.1, 3)]


def noise_clip(num_frames: int, height: int = 17, width: int = 13) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def view(picture: np.ndarray, x: float, y: float, size: tuple[int, int] = (240, 160)) -> np.ndarray:
    """The part of a picture whose upper left corner is at (x, y), drawn with a Lanczos kernel."""
    matrix = np.float32([[1, 0, x], [0, 1, y]])
    return cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP)


def photograph(number: int = 0) -> np.ndarray:
    return np.asarray(load_photograph((*HELD_OUT, *TRAINING)[number]))


def pan(num_frames: int, dx: float = 6.3, dy: float = -2.7, step: float = 1.0) -> np.ndarray:
    return np.stack([view(photograph(), 100 + dx * k * step, 120 + dy * k * step) for k in range(num_frames)])


def play(clip: np.ndarray, fps_in: float, fps_out: float, *, loop: bool = False, chunk: int = 3) -> np.ndarray:
    chunks = (clip[start : start + chunk] for start in range(0, len(clip), chunk))
    return np.concatenate(list(interpolate(chunks, fps_in, fps_out, len(clip), loop=loop)))


def unit(frame: np.ndarray) -> np.ndarray:
    return frame.astype(np.float32) / 255


def average(first: np.ndarray, second: np.ndarray, time: float) -> np.ndarray:
    return np.round((1 - time) * first.astype(np.float64) + time * second).astype(np.uint8)


@pytest.mark.parametrize(("fps_in", "fps_out"), RATES)
@pytest.mark.parametrize("num_frames", [1, 2, 3, 14, 25])
def test_as_many_frames_as_fill_the_time(num_frames, fps_in, fps_out):
    clip = np.zeros((num_frames, 2, 2, 3), np.uint8)
    played = play(clip, fps_in, fps_out)
    seconds, tolerance = Fraction(num_frames) / Fraction(fps_in), Fraction(1, 2) / Fraction(fps_out)
    assert len(played) == num_interpolated(num_frames, fps_in, fps_out)
    assert len(played) == 1 or abs(len(played) / Fraction(fps_out) - seconds) <= tolerance


@pytest.mark.parametrize(
    ("num_frames", "fps_in", "fps_out", "expected"),
    [
        (14, 7, 24, 48),
        (25, 6, 24, 100),
        (25, 24, 6, 6),
        (14, 30, 24, 11),
        (1, 24, 6, 1),
        (5, 2, 1, 3),
        (21, 7, 60, 180),
    ],
)
def test_counts_worked_out_by_hand(num_frames, fps_in, fps_out, expected):
    assert num_interpolated(num_frames, fps_in, fps_out) == expected


@pytest.mark.parametrize(("fps_in", "fps_out"), RATES)
def test_a_time_that_has_a_frame_gets_it_unchanged(fps_in, fps_out):
    clip = noise_clip(9)
    played = play(clip, fps_in, fps_out)
    kept = 0
    for k, frame in enumerate(played):
        position = k * Fraction(fps_in) / Fraction(fps_out)
        if position > len(clip) - 1:
            np.testing.assert_array_equal(frame, clip[-1])
        elif abs(position - round(position)) <= Fraction(1, 1000):
            np.testing.assert_array_equal(frame, clip[round(position)])
            kept += 1
    assert kept >= 1


@pytest.mark.parametrize("times", [1, 2, 3, 4, 10])
def test_whole_multiples_keep_every_frame(times):
    clip = noise_clip(5)
    np.testing.assert_array_equal(play(clip, 6, 6 * times)[::times], clip)
    np.testing.assert_array_equal(play(clip, 6 * times, 6), clip[::times][: num_interpolated(5, times, 1)])


def test_a_frame_a_thousandth_away_is_near_enough():
    clip = noise_clip(3)
    np.testing.assert_array_equal(play(clip, 1, 1.0004), clip)
    np.testing.assert_array_equal(play(clip, 1, 0.9996), clip)


def test_odd_rates_show_the_times_in_between():
    """A dot that moves evenly is where the time says, for times that no frame has."""
    y, x = np.mgrid[:96, :160]
    where = np.arange(8) * 6.0 + 40
    dots = [np.exp(-((x - at) ** 2 + (y - 48) ** 2) / 200) for at in where]
    clip = np.stack([np.repeat((230 * dot)[..., None], 3, axis=2).astype(np.uint8) for dot in dots])
    played = play(clip, 7, 17)
    for k, frame in enumerate(played):
        at = np.average(x, weights=frame[..., 0].astype(float))
        assert at == pytest.approx(40 + 6.0 * min(k * 7 / 17, 7), abs=0.15)


@pytest.mark.parametrize(("dx", "dy"), [(1.5, 0.7), (6.3, -2.7), (-14.2, 5.4)])
def test_a_pan_is_followed_to_the_fraction_of_a_pixel(dx, dy):
    """The frames in between of a photograph that moves by a known way, drawn by another interpolation."""
    clip, truth = pan(2, dx, dy), pan(4, dx, dy, step=0.25)
    played = play(clip, 6, 24)
    inner = np.s_[16:-16, 16:-16]  # what both frames show
    for k in (1, 2, 3):
        made = psnr(unit(played[k][inner]), unit(truth[k][inner]))
        assert made > 33
        assert made > psnr(unit(average(*clip, k / 4)[inner]), unit(truth[k][inner])) + 4


def test_the_edge_comes_from_the_frame_that_shows_it():
    clip, truth = pan(2, 16.0, 0.0), pan(2, 16.0, 0.0, step=0.5)[1]
    made = play(clip, 1, 2)[1]
    for edge in (np.s_[:, :8], np.s_[:, -8:]):
        assert psnr(unit(made[edge]), unit(truth[edge])) > 24


def test_something_that_passes_before_a_background_is_sharp_and_leaves_no_ghost():
    background, thing = view(photograph(3), 100, 100), photograph(4)[100:160, 200:260]

    def scene(x: int) -> np.ndarray:
        drawn = background.copy()
        drawn[50:110, x : x + 60] = thing
        return drawn

    first, truth, second = scene(60), scene(68), scene(76)
    made = play(np.stack([first, second]), 1, 2)[1]
    score, faded = psnr(unit(made), unit(truth)), psnr(unit(average(first, second, 0.5)), unit(truth))
    assert score > faded + 6


@pytest.mark.parametrize("brighter", [1.0, 1.8, 0.4])
@pytest.mark.parametrize("dx", [0.0, 9.0, 30.0])
def test_pans_and_flashes_are_no_cuts(dx, brighter):
    first, second = view(photograph(), 100, 100), view(photograph(), 100 + dx, 100)
    second = np.clip(second * brighter, 0, 255).astype(np.uint8)
    assert not Motion.between(first, second).is_cut


@pytest.mark.parametrize(("before", "after"), list(pairwise([0, 1, 3, 4, 5, 6, 0])))
def test_across_a_cut_the_nearest_frame_stays(before, after):
    clip = np.stack([view(photograph(before), 40, 40), view(photograph(after), 60, 60)])
    assert Motion.between(*clip).is_cut
    np.testing.assert_array_equal(play(clip, 6, 24), clip[[0, 0, 0, 1, 1, 1, 1, 1]])


@pytest.mark.parametrize("plain", [0, 255])
def test_out_of_black_or_white_a_clip_fades(plain):
    scene = view(photograph(), 100, 100)
    clip = np.stack([np.full_like(scene, plain), scene])
    means = play(clip, 6, 24)[:5].mean(axis=(1, 2, 3))
    assert (np.diff(np.abs(means - plain)) > 5).all()


@pytest.mark.parametrize("chunk", [1, 2, 5, 7])
def test_chunks_change_no_byte(chunk):
    clip = pan(7)[:, ::3, ::3]
    np.testing.assert_array_equal(play(clip, 7, 24, chunk=chunk), play(clip, 7, 24, chunk=3))


def test_a_still_clip_stays_exactly_still():
    clip = np.repeat(view(photograph(), 100, 100)[None], 3, axis=0)
    np.testing.assert_array_equal(play(clip, 7, 24), np.repeat(clip[:1], 10, axis=0))


def test_what_stays_still_beside_what_moves_keeps_its_bytes():
    clip = np.repeat(view(photograph(), 100, 100)[None], 2, axis=0)
    clip[0, 20:40, 20:40], clip[1, 20:40, 26:46] = 255, 255
    np.testing.assert_array_equal(play(clip, 6, 24)[:, 80:, 120:], np.repeat(clip[:1, 80:, 120:], 8, axis=0))


@pytest.mark.parametrize(("height", "width"), [(17, 13), (1, 1), (2, 400), (400, 2), (9, 64), (33, 31)])
def test_any_size(height, width):
    ramp = (np.mgrid[:height, : width + 2][1] // 2).astype(np.uint8)[..., None].repeat(3, axis=2)
    clip = np.stack([ramp[:, :-2], ramp[:, 2:]])
    played = play(clip, 1, 2)
    assert played.shape == (4, height, width, 3)
    assert np.abs(played[1].astype(int) - clip[0]).max() <= 2


def test_a_loop_goes_on_from_the_last_frame_to_the_first():
    there = pan(4)
    clip = np.concatenate([there, there[2:0:-1]])  # ends one step from where it began
    played, open_ended = play(clip, 6, 24, loop=True), play(clip, 6, 24)
    assert len(played) == len(open_ended) == 24
    np.testing.assert_array_equal(played[:21], open_ended[:21])
    np.testing.assert_array_equal(open_ended[21:], np.repeat(clip[-1:], 3, axis=0))
    np.testing.assert_array_equal(played[21:], play(clip[[-1, 0]], 6, 24)[1:4])


def test_one_frame_stays():
    clip = noise_clip(1)
    for loop in (False, True):
        np.testing.assert_array_equal(play(clip, 6, 24, loop=loop), np.repeat(clip, 4, axis=0))


@pytest.mark.parametrize(("fps_in", "fps_out"), [(6, 24), (24, 6)])
def test_frames_are_read_as_they_are_needed(fps_in, fps_out):
    read = 0

    def endless():
        nonlocal read
        for number in count():
            read += 1
            yield np.full((1, 8, 8, 3), number % 256, np.uint8)

    played = interpolate(endless(), fps_in, fps_out, 10**9)
    for k in range(60):
        assert next(played).shape == (1, 8, 8, 3)
        assert read <= k * fps_in / fps_out + 3


def test_the_whole_clip_is_read_even_where_its_end_is_not_shown():
    chunks = iter([noise_clip(7)])
    assert len(list(interpolate(chunks, 24, 6, 7))) == 2
    assert next(chunks, None) is None


def test_memory_does_not_grow_with_the_clip():
    script = (
        "import resource, numpy as np\n"
        "from sgm.enhance.interpolation import interpolate\n"
        "def peak(n):\n"
        "    chunks = (np.full((1, 288, 512, 3), k % 2, np.uint8) for k in range(n))\n"
        "    assert sum(len(made) for made in interpolate(chunks, 10, 11, n)) == n * 11 // 10\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "print(peak(10), peak(40))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    short, long = map(int, done.stdout.split())
    assert long - short < 15 * 288 * 512 * 3


def test_opencv_keeps_its_threads():
    before = cv2.getNumThreads()
    play(pan(2)[:, ::4, ::4], 1, 2)
    assert cv2.getNumThreads() == before
