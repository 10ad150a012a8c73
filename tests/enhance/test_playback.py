import numpy as np
import pytest

from sgm.enhance.playback import num_pingpong, pingpong


def clip_of(num_frames: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (num_frames, 5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("num_frames", "order"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2, 1]), (5, [0, 1, 2, 3, 4, 3, 2, 1])]
)
@pytest.mark.parametrize("held_bytes", [1, 10**6])
def test_back_without_showing_a_turning_frame_twice(num_frames, order, held_bytes, tmp_path):
    clip = clip_of(num_frames)
    chunks = [clip[:2], clip[2:]] if num_frames > 2 else [clip]
    played = np.concatenate(list(pingpong(chunks, folder=tmp_path, held_bytes=held_bytes)))
    np.testing.assert_array_equal(played, clip[order])
    assert len(played) == num_pingpong(num_frames)
    assert list(tmp_path.iterdir()) == []


def test_frames_of_any_memory_layout():
    clip = clip_of(4)[:, :, ::-1]
    np.testing.assert_array_equal(np.concatenate(list(pingpong([clip]))), clip[[0, 1, 2, 3, 2, 1]])


def test_the_way_there_is_shown_as_it_comes():
    chunks = iter([clip_of(2), clip_of(2)])
    played = pingpong(chunks)
    next(played)
    assert next(chunks, None) is not None
    played.close()


def test_a_clip_ended_early_leaves_nothing(tmp_path):
    played = pingpong(iter([clip_of(3), clip_of(3)]), folder=tmp_path, held_bytes=1)
    next(played)
    played.close()
    assert list(tmp_path.iterdir()) == []
