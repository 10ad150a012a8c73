import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from skimage.registration import phase_cross_correlation

from sgm.training import photographs, scenes
from sgm.training.scenes import Layer, Motion, scene_clip, still_image

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
    real = scenes._random_motion

    def pan(rng, displacement):
        real(rng, displacement)  # draws as many random numbers as without this fixture
        return Motion(pan_x=displacement * 0.8, pan_y=displacement * 0.6), False

    monkeypatch.setattr(scenes, "_random_motion", pan)
    monkeypatch.setattr(scenes, "_painted_layer", scenes._photograph_layer)
    monkeypatch.setattr(scenes, "_subject_layer", lambda *_: Layer(torch.zeros(4, 2, 2), Motion(), 0.1, 0.1))


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
    """0.072 / 127 frame widths a second per bucket, so bucket 127 at 6 frames a second moves 1.2 % of the width."""
    for bucket, fps in [(127, 6), (255, 6), (64, 3), (255, 12)]:
        expected = 0.072 / 127 * bucket / fps * SIZE
        measured = np.median([shift(*plain_pan(seed, bucket, fps)[1:3]) for seed in range(8)])
        assert measured == pytest.approx(expected, rel=0.1, abs=0.1)


def test_a_pan_moves_the_camera_and_not_the_picture(pan_only):
    clip = plain_pan(2, 255, 2)  # 0.0723 widths a frame: 5.6 pixels to the right, 4.2 down
    kept = peak_signal_noise_ratio(clip[0, 10:-20, 10:-20], clip[0, 10:-20, 10:-20] // 2 + 64)
    moved = clip[1, 10 - 4 : -20 - 4, 10 - 6 : -20 - 6]
    assert peak_signal_noise_ratio(clip[0, 10:-20, 10:-20], moved) > kept


@pytest.mark.parametrize("kind", ["zoom", "roll"])
def test_zoom_and_roll_move_the_picture_as_far_as_a_pan_on_average(kind):
    displacement = 0.01
    rows, columns = np.meshgrid(*[(np.arange(200) + 0.5) / 200 - 0.5] * 2)
    places = np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)])
    first, second = Motion(**{kind: displacement / scenes.MEAN_RADIUS}).frame_to_scene(2).astype(float)
    moved = np.linalg.norm((second - first) @ places, axis=0).mean()
    assert moved == pytest.approx(displacement, rel=0.01)


def test_positive_zoom_magnifies_and_positive_roll_turns_the_camera_from_right_to_down():
    zoom = Motion(zoom=0.1).frame_to_scene(3)
    assert zoom[0, 0, 0] > 1 > zoom[2, 0, 0]
    right = Motion(roll=0.1).frame_to_scene(3)[2] @ [1, 0, 0]
    assert right[0] > 0
    assert right[1] > 0


def test_a_layer_is_where_it_is_said_to_be():
    picture = torch.ones(4, 20, 20)
    layer = Layer(picture, Motion(), 0.1, 0.1, centre_x=-0.25, centre_y=0.15, drift_x=0.1)
    alpha = layer.frames(3, 100)[:, 3].numpy()
    for frame, centre_x in zip(alpha, (-0.35, -0.25, -0.15), strict=True):
        assert frame.sum() == pytest.approx(20 * 20, rel=0.05)
        rows, columns = np.nonzero(frame > 0.5)
        assert (columns.mean() + 0.5) / 100 - 0.5 == pytest.approx(centre_x, abs=0.005)
        assert (rows.mean() + 0.5) / 100 - 0.5 == pytest.approx(0.15, abs=0.005)


def test_nearer_layers_move_faster_than_the_backdrop(monkeypatch):
    speeds = {}
    frames = Layer.frames

    def record(layer, num_frames, size):
        speeds.setdefault(len(layer.picture), []).append(np.hypot(layer.motion.pan_x, layer.motion.pan_y))
        return frames(layer, num_frames, size)

    pan = Motion(pan_x=0.01)
    monkeypatch.setattr(scenes, "_random_motion", lambda *_: (pan, True))
    monkeypatch.setattr(Layer, "frames", record)
    for seed in range(4):
        scene_clip(seed, 2, 32, 127, 6)
    assert max(speeds[3]) < 0.01 < min(speeds[4])


def test_no_border_shows_at_the_strongest_motion(monkeypatch):
    """Whatever the camera does, the backdrop reaches to every corner of every frame."""
    corners = np.array([[-0.5, -0.5, 0.5, 0.5], [-0.5, 0.5, -0.5, 0.5], [1, 1, 1, 1]])
    seen = []
    frames = Layer.frames

    def check(layer, num_frames, size):
        if len(layer.picture) == 3:
            places = layer.motion.frame_to_scene(num_frames) @ corners - [[layer.centre_x], [layer.centre_y]]
            seen.append(np.abs(places / [[layer.half_width], [layer.half_height]]).max())
        return frames(layer, num_frames, size)

    monkeypatch.setattr(Layer, "frames", check)
    for seed in range(40):
        scene_clip(seed, 14, 32, 255, 3)
    assert len(seen) == 40
    assert max(seen) <= 1 + 1e-5


def test_held_out_photographs_are_never_trained_on(monkeypatch):
    assert not {p.file for p in photographs.TRAINING} & {p.file for p in photographs.HELD_OUT}
    drawn = {False: set(), True: set()}
    real = photographs.load_photograph
    for held_out, files in drawn.items():

        def load(photograph, files=files):
            files.add(photograph.file)
            return real(photograph)

        monkeypatch.setattr(scenes, "load_photograph", load)
        for seed in range(120):
            scene_clip(seed, 1, 16, 127, 6, held_out)
            still_image(seed, 16, held_out)
    assert drawn[False] == {p.file for p in photographs.TRAINING}
    assert drawn[True] == {p.file for p in photographs.HELD_OUT} >= {"coffee.png", "rocket.jpg", "camera.png"}


def test_held_out_scenes_show_held_out_objects_only(monkeypatch):
    seeds = {False: [], True: []}
    real = scenes.random_object
    for held_out, drawn in seeds.items():
        monkeypatch.setattr(scenes, "random_object", lambda seed, drawn=drawn: drawn.append(seed) or real(seed))
        for seed in range(30):
            scene_clip(seed, 1, 16, 127, 6, held_out)
            still_image(seed, 16, held_out)
    assert max(seeds[False]) < scenes.HELD_OUT_SEED <= min(seeds[True])


def test_stills_are_scenes_and_objects_over_white():
    pictures = np.stack([still_image(seed, 32) for seed in range(60)])
    assert pictures.shape == (60, 32, 32, 3)
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures[7], still_image(7, 32))
    over_white = (pictures[:, [0, 0, -1, -1], [0, -1, 0, -1]] == 255).all(axis=(1, 2)).mean()
    assert 0.3 < over_white < 0.7
