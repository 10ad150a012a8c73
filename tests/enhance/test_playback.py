import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from sgm.enhance import playback
from sgm.enhance.playback import num_pingpong, pingpong


@pytest.fixture
def temporary_files(tmp_path, monkeypatch):
    """A folder for temporary files, and a function that gives those in it that this process has open."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def opened() -> list[Path]:
        targets = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return [target for target in targets if target.is_relative_to(tmp_path)]

    return opened


def clip_of(num_frames: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (num_frames, 5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("num_frames", "order"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2, 1]), (5, [0, 1, 2, 3, 4, 3, 2, 1])]
)
@pytest.mark.parametrize("held_bytes", [1, 10**6])
def test_back_without_showing_a_turning_frame_twice(num_frames, order, held_bytes, monkeypatch):
    monkeypatch.setattr(playback, "HELD_BYTES", held_bytes)
    clip = clip_of(num_frames)
    chunks = [clip[:2], clip[2:]] if num_frames > 2 else [clip]
    played = np.concatenate(list(pingpong(chunks)))
    np.testing.assert_array_equal(played, clip[order])
    assert len(played) == num_pingpong(num_frames)


def test_frames_of_any_memory_layout():
    clip = clip_of(4)[:, :, ::-1]
    np.testing.assert_array_equal(np.concatenate(list(pingpong([clip]))), clip[[0, 1, 2, 3, 2, 1]])


def test_the_way_there_is_shown_as_it_comes():
    chunks = iter([clip_of(2), clip_of(2)])
    played = pingpong(chunks)
    next(played)
    assert next(chunks, None) is not None
    played.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_frames_that_are_too_many_to_hold_wait_on_disk_and_are_gone_with_a_clip_ended_early(
    tmp_path, monkeypatch, temporary_files
):
    monkeypatch.setattr(playback, "HELD_BYTES", 1)
    played = pingpong(iter([clip_of(3), clip_of(3)]))
    next(played)
    assert len(temporary_files()) == 1
    played.close()
    assert temporary_files() == []
    assert list(tmp_path.iterdir()) == []
