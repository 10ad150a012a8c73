import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from skimage.registration import phase_cross_correlation

from sgm.data import camera_moves, photographs
from sgm.data.camera_moves import Layer, Motion, camera_motion, scene_clip, still_image

SIZE = 96


def plain_pan(seed, bucket, fps, num_frames=4):
    return scene_clip(seed, num_frames, SIZE, bucket, fps)


def shift(first, second):
    """How far (pixels) the second frame's middle has moved, by phase correlation of the grey frames."""
    window = np.hanning(SIZE)[:, None] * np.hanning(SIZE)
    grey = [(frame.mean(axis=2) - frame.mean()) * window for frame in (first, second)]
    measured, _, _ = phase_cross_correlation(*grey, upsample_factor=20)
    return float(np.hypot(*measured))


@pytest.fixture
def pan_only(monkeypatch):
    """Photographs that pan, without subjects in front."""
    monkeypatch.setattr(camera_moves, "camera_motion", lambda _, displacement: Motion(0.8, 0.6).scaled(displacement))
    monkeypatch.setattr(camera_moves, "_painted_layer", camera_moves._photograph_layer)
    monkeypatch.setattr(camera_moves, "_subject_layer", lambda *_: Layer(torch.zeros(4, 2, 2), 0.1, 0.1))


def test_a_seed_is_a_clip():
    first, again, other = (scene_clip(seed, 3, 64, 127, 6) for seed in (3, 3, 4))
    assert first.shape == (3, 64, 64, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5


def test_bucket_zero_is_static():
    for seed in range(6):
        clip = scene_clip(seed, 4, 64, 0, 6)
        assert (clip == clip[:1]).all()


def test_a_pan_moves_by_the_documented_constant(pan_only):
    """0.016 / 127 frame widths a second per bucket, so bucket 127 at 6 frames a second moves 0.27 % of the width."""
    for bucket, fps in [(127, 2), (255, 2), (64, 1), (255, 4)]:
        expected = 0.016 / 127 * bucket / fps * SIZE
        measured = np.median([shift(*plain_pan(seed, bucket, fps)[1:3]) for seed in range(8)])
        assert measured == pytest.approx(expected, rel=0.1, abs=0.1)


def test_a_pan_moves_the_camera_and_not_the_picture(pan_only):
    clip = plain_pan(2, 255, 4 / 9)  # 0.0723 widths a frame: 5.6 pixels to the right, 4.2 down
    kept = peak_signal_noise_ratio(clip[0, 10:-20, 10:-20], clip[0, 10:-20, 10:-20] // 2 + 64)
    moved = clip[1, 10 - 4 : -20 - 4, 10 - 6 : -20 - 6]
    assert peak_signal_noise_ratio(clip[0, 10:-20, 10:-20], moved) > kept


def places(size: int) -> np.ndarray:
    """Homogeneous places (3, size * size) of a frame's pixels."""
    y, x = np.mgrid[:size, :size]
    return np.stack([(x.ravel() + 0.5) / size - 0.5, (y.ravel() + 0.5) / size - 0.5, np.ones(size**2)])


@pytest.mark.parametrize(
    ("light", "moves"),
    [
        (lambda x, y: x, {"pan_x": 1}),
        (lambda x, y: -y, {"pan_y": -1}),
        (lambda x, y: -(x**2) - y**2, {"zoom": 1}),
        (lambda x, y: 4 * (x**2 + y**2), {"zoom": -1}),
        (lambda x, y: x * y, {"roll": 1}),
        (lambda x, y: 0 * x, {"zoom": 1}),
    ],
)
def test_the_camera_is_drawn_to_the_light(light, moves):
    x, y, _ = places(64).astype(np.float32)
    first = torch.from_numpy(10 * light(x, y).reshape(1, 64, 64)).expand(3, -1, -1)
    motion = vars(camera_motion(first, 0.01))
    strongest = max(abs(value) for value in motion.values())
    found = {name: np.sign(value) for name, value in motion.items() if abs(value) > 0.2 * strongest}
    assert found == moves


@pytest.mark.parametrize("seed", range(4))
def test_the_camera_moves_the_picture_by_what_is_asked(seed):
    first = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(seed))
    now, following = camera_motion(first, 1e-4).frame_to_scene(2).astype(float)
    moved = np.linalg.norm((following - now) @ places(200), axis=0).mean()
    assert moved == pytest.approx(1e-4, rel=0.01)


@pytest.mark.parametrize("kind", ["zoom", "roll"])
def test_zoom_and_roll_move_the_picture_as_far_as_a_pan_on_average(kind):
    displacement = 0.001
    first, second = Motion(**{kind: displacement / camera_moves.MEAN_RADIUS}).frame_to_scene(2).astype(float)
    moved = np.linalg.norm((second - first) @ places(200), axis=0).mean()
    assert Motion(**{kind: 1.0}).mean_length() == pytest.approx(camera_moves.MEAN_RADIUS, rel=0.01)
    assert moved == pytest.approx(displacement, rel=0.01)


def test_positive_zoom_magnifies_and_positive_roll_turns_the_camera_from_right_to_down():
    zoom = Motion(zoom=0.1).frame_to_scene(3)
    assert zoom[0, 0, 0] == 1 > zoom[1, 0, 0] > zoom[2, 0, 0]
    right = Motion(roll=0.1).frame_to_scene(3)[2] @ [1, 0, 0]
    assert right[0] > 0
    assert right[1] > 0


@pytest.mark.parametrize(("pan", "drift"), [(0.0, 2.0), (0.1, 0.0), (0.1, 2.0)])
def test_a_layer_is_where_it_is_said_to_be(pan, drift):
    """It drifts by so many times the mean displacement, 0.05, and the camera leaves it behind 1.5 times as fast."""
    layer = Layer(torch.ones(4, 20, 20), 0.1, 0.1, -0.25, 0.15, nearness=1.5, drift=drift)
    alpha = layer.frames(Motion(pan_x=pan), 0.05, 3, 100)[:, 3].numpy()
    for number, frame in enumerate(alpha):
        rows, columns = np.nonzero(frame > 0.5)
        expected = -0.25 + number * (0.05 * drift - 1.5 * pan)
        if expected - 0.1 > -0.5:  # whole in the frame
            assert frame.sum() == pytest.approx(20 * 20, rel=0.05)
            assert (columns.mean() + 0.5) / 100 - 0.5 == pytest.approx(expected, abs=0.005)
            assert (rows.mean() + 0.5) / 100 - 0.5 == pytest.approx(0.15, abs=0.005)


def test_subjects_are_nearer_than_the_backdrop_and_walk_towards_the_middle(monkeypatch):
    layers = []
    frames = Layer.frames
    monkeypatch.setattr(Layer, "frames", lambda layer, *more: layers.append(layer) or frames(layer, *more))
    for seed in range(12):
        scene_clip(seed, 2, 32, 127, 6)
    backdrops, subjects = ([layer for layer in layers if len(layer.picture) == count] for count in (3, 4))
    assert max(layer.nearness for layer in backdrops) == 1 < min(layer.nearness for layer in subjects)
    assert all(layer.drift * layer.centre_x < 0 for layer in subjects)
    assert all(layer.drift == 0 for layer in backdrops)


def test_no_border_shows_at_the_strongest_motion(monkeypatch):
    """Whatever the camera does, the backdrop reaches to every corner of every frame."""
    corners = np.array([[-0.5, -0.5, 0.5, 0.5], [-0.5, 0.5, -0.5, 0.5], [1, 1, 1, 1]])
    seen = []
    frames = Layer.frames

    def check(layer, motion, displacement, num_frames, size):
        if len(layer.picture) == 3:
            assert (layer.centre_x, layer.centre_y, layer.nearness, layer.drift) == (0, 0, 1, 0)
            half = [[layer.half_width], [layer.half_height]]
            seen.append(np.abs(motion.frame_to_scene(num_frames) @ corners / half).max())
        return frames(layer, motion, displacement, num_frames, size)

    monkeypatch.setattr(Layer, "frames", check)
    for seed in range(40):
        scene_clip(seed, 14, 32, 255, 1.5)
    assert len(seen) == 2 * 40, "its first frame by itself, and the clip"
    assert max(seen) <= 1 + 1e-5


@pytest.mark.parametrize("mix", [(1, 0, 0, 0), (0, 0, -1, 0), (0, 0, 0, 1), (0.6, 0.6, -1, 0), (1, 1, -1, 1)])
@pytest.mark.parametrize("travel", [0.05, 0.42])
def test_the_backdrop_is_large_enough_for_any_motion(mix, travel):
    corners = np.array([[-0.5, -0.5, 0.5, 0.5], [-0.5, 0.5, -0.5, 0.5], [1, 1, 1, 1]])
    motion = Motion(*mix)
    way = motion.scaled(travel / 13 / motion.mean_length()).frame_to_scene(14) @ corners
    assert np.abs(way).max() <= camera_moves._half_extent(travel)


def test_held_out_photographs_are_never_trained_on(monkeypatch):
    assert not {p.file for p in photographs.TRAINING} & {p.file for p in photographs.HELD_OUT}
    drawn = {False: set(), True: set()}
    real = photographs.load_photograph
    for held_out, files in drawn.items():

        def load(photograph, files=files):
            files.add(photograph.file)
            return real(photograph)

        monkeypatch.setattr(camera_moves, "load_photograph", load)
        for seed in range(120):
            scene_clip(seed, 1, 16, 127, 6, held_out)
            still_image(seed, 16, held_out)
    assert drawn[False] == {p.file for p in photographs.TRAINING}
    assert drawn[True] == {p.file for p in photographs.HELD_OUT} >= {"coffee.png", "rocket.jpg", "camera.png"}


def test_held_out_scenes_show_held_out_objects_only(monkeypatch):
    seeds = {False: [], True: []}
    real = camera_moves.random_object
    for held_out, drawn in seeds.items():
        monkeypatch.setattr(camera_moves, "random_object", lambda seed, drawn=drawn: drawn.append(seed) or real(seed))
        for seed in range(30):
            scene_clip(seed, 1, 16, 127, 6, held_out)
            still_image(seed, 16, held_out)
    assert max(seeds[False]) < camera_moves.HELD_OUT_SEED <= min(seeds[True])


def test_stills_are_scenes_and_objects_over_white():
    pictures = np.stack([still_image(seed, 32) for seed in range(60)])
    assert pictures.shape == (60, 32, 32, 3)
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures[7], still_image(7, 32))
    over_white = (pictures[:, [0, 0, -1, -1], [0, -1, 0, -1]] == 255).all(axis=(1, 2)).mean()
    assert 0.3 < over_white < 0.7
