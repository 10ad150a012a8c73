"""Video and JPEG files, looked at with FFmpeg's own report, PyAV and Pillow."""

import os
import re
import subprocess
import weakref
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import psutil
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from sgm.errors import UserError
from sgm.outputs.video import constant_rate_factor, read_frames, read_video, write_video

COLOURS = [
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255),
    (255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 30, 60), (30, 90, 200), (250, 180, 20),
]  # fmt: skip


def patches():
    """Three frames of saturated patches, 32x32 pixels each: uint8 (3, 96, 128, 3)."""
    picture = np.array(COLOURS, np.uint8).reshape(3, 4, 3).repeat(32, axis=0).repeat(32, axis=1)
    return picture[None].repeat(3, axis=0)


def patch_means(frame):
    return frame.astype(float).reshape(3, 32, 4, 32, 3)[:, 8:24, :, 8:24].mean(axis=(1, 3)).reshape(-1, 3)


def ffmpeg_report(path):
    """What `ffmpeg -i` says of the video stream, and how many frames it decodes."""
    command = [get_ffmpeg_exe(), "-i", str(path), "-f", "null", "-"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return re.search(r"Stream.*Video: (.*)", report)[1], int(re.findall(r"frame=\s*(\d+)", report)[-1])


@pytest.mark.parametrize("fps", [6, 7.5, 24, 23.976, 1 / 3])
def test_codec_rate_and_length(tmp_path, small_clip, fps, provenance):
    write_video(tmp_path / "clip.mp4", small_clip, fps, 95, provenance)
    stream, count = ffmpeg_report(tmp_path / "clip.mp4")
    assert stream.startswith("h264")
    assert "yuv420p(tv, bt709, progressive)" in stream, "one name stands for matrix, primaries and transfer alike"
    assert "96x64" in stream
    assert count == len(small_clip)
    with av.open(tmp_path / "clip.mp4") as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(fps, rel=1e-4)
        assert container.duration / av.time_base == pytest.approx(len(small_clip) / fps, rel=0.01)


def test_index_comes_before_the_pictures(tmp_path, small_clip, provenance):
    write_video(tmp_path / "clip.mp4", small_clip, 6, 95, provenance)
    content = (tmp_path / "clip.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat"), "a browser plays it while it loads"


def test_colours(tmp_path, provenance):
    write_video(tmp_path / "clip.mp4", patches(), 6, 95, provenance)
    with av.open(tmp_path / "clip.mp4") as container:
        by_pyav = next(container.decode(video=0)).to_ndarray(format="rgb24")
    for frame in (by_pyav, *read_video(tmp_path / "clip.mp4")):
        assert np.abs(patch_means(frame) - COLOURS).max() <= 3


def test_brightness_is_bt709_in_the_limited_range(tmp_path, provenance):
    write_video(tmp_path / "clip.mp4", patches(), 6, 95, provenance)
    with av.open(tmp_path / "clip.mp4") as container:
        luma = next(container.decode(video=0)).to_ndarray()[:96]
    expected = 16 + 219 / 255 * (np.array(COLOURS) @ [0.2126, 0.7152, 0.0722])
    measured = luma.reshape(3, 32, 4, 32)[:, 8:24, :, 8:24].mean(axis=(1, 3)).ravel()
    np.testing.assert_allclose(measured, expected, atol=1.5)


def test_pictures_are_close_to_the_frames(tmp_path, small_clip, provenance):
    write_video(tmp_path / "clip.mp4", small_clip, 6, 95, provenance)
    error = read_video(tmp_path / "clip.mp4").astype(float) - small_clip
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 40


@pytest.mark.parametrize(("height", "width"), [(63, 95), (64, 95), (63, 96), (1, 1), (2, 50)])
def test_odd_sides_repeat_their_last_pixels_and_nothing_is_resized(tmp_path, small_clip, height, width, provenance):
    clip = small_clip[:, :height, :width]
    write_video(tmp_path / "clip.mp4", clip, 6, 95, provenance)
    read = read_video(tmp_path / "clip.mp4")
    assert read.shape == (5, height + height % 2, width + width % 2, 3)
    padded = np.pad(clip, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    assert np.abs(read.astype(float) - padded).mean() < 4


def test_one_frame(tmp_path, small_clip, provenance):
    write_video(tmp_path / "clip.mp4", small_clip[:1], 6, 95, provenance)
    assert ffmpeg_report(tmp_path / "clip.mp4")[1] == 1
    assert read_video(tmp_path / "clip.mp4").shape == (1, 64, 96, 3)


def test_names_are_never_read_as_options_or_addresses(tmp_path, small_clip, monkeypatch, provenance):
    monkeypatch.chdir(tmp_path)
    for name in ("-y.mp4", "pipe:1", "a%03d b'ü.mp4"):
        write_video(Path(name), small_clip, 6, 95, provenance)
        assert len(read_video(tmp_path / name)) == 5


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_impossible_rates(tmp_path, small_clip, fps, provenance):
    with pytest.raises(UserError, match=r"fps is .* above 0"):
        write_video(tmp_path / "clip.mp4", small_clip, fps, 95, provenance)


def test_a_failing_encoder_raises_its_own_words(tmp_path, small_clip, provenance):
    with pytest.raises(OSError, match="No such file or directory"):
        write_video(tmp_path / "absent" / "clip.mp4", small_clip, 6, 95, provenance)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_raises(tmp_path, small_clip, provenance):
    (tmp_path / "clip.mp4").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_video(tmp_path / "clip.mp4", small_clip, 6, 95, provenance)


def test_reading_what_is_no_video(tmp_path):
    with pytest.raises(OSError, match=r"absent.mp4.*No such file"):
        read_video(tmp_path / "absent.mp4")
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(OSError, match=r"text.mp4.*Invalid data"):
        read_video(tmp_path / "text.mp4")


def test_the_quality_scale_goes_through_what_jpeg_and_x264_take_for_usual():
    assert constant_rate_factor(75) == 23
    assert constant_rate_factor(95) == 16
    assert 0 < constant_rate_factor(100) < 16
    assert 23 < constant_rate_factor(1) < 51


def test_quality_trades_size_for_closeness(tmp_path, small_clip, provenance):
    noise = np.random.default_rng(0).normal(0, 12, small_clip.shape)
    clip = np.clip(small_clip + noise, 0, 255).astype(np.uint8)
    sizes, errors = [], []
    for quality in (10, 50, 95):
        write_video(tmp_path / "clip.mp4", clip, 6, quality, provenance)
        sizes.append((tmp_path / "clip.mp4").stat().st_size)
        errors.append(np.abs(read_video(tmp_path / "clip.mp4").astype(float) - clip).mean())
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert sizes[0] < sizes[2] / 4


@pytest.mark.parametrize("words", ["No space left on device", "Read-only file system", "Stale file handle"])
def test_what_ffmpeg_tells_of_the_file_system_has_its_number(tmp_path, small_clip, provenance, monkeypatch, words):
    failing = tmp_path / "ffmpeg"
    failing.write_text(f"#!/bin/sh\necho '[out#0/mp4] Error writing trailer: {words}' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(failing))
    with pytest.raises(OSError, match=f"can't write .*clip.mp4: .*{words}") as error:
        write_video(tmp_path / "clip.mp4", small_clip, 6, 95, provenance)
    assert os.strerror(error.value.errno) == words


def test_what_else_ffmpeg_says_has_none(tmp_path, small_clip, provenance):
    with pytest.raises(OSError, match="can't write") as error:
        write_video(tmp_path / "absent" / "clip.mp4", small_clip, 6, 95, provenance)
    assert error.value.errno is None


def test_frames_are_written_and_read_one_by_one(tmp_path, small_clip, provenance):
    """Of forty frames from an iterator never more than a few are in memory."""
    alive = most = 0

    def free():
        nonlocal alive
        alive -= 1

    def counted(frame):
        nonlocal alive, most
        frame = frame.copy()
        weakref.finalize(frame, free)
        alive += 1
        most = max(most, alive)
        return frame

    write_video(tmp_path / "clip.mp4", (counted(small_clip[t % 5]) for t in range(40)), 6, 95, provenance)
    assert most <= 3
    read = read_frames(tmp_path / "clip.mp4")
    assert next(read).shape == (64, 96, 3)
    assert sum(1 for _ in read) == 39
    assert ffmpeg_report(tmp_path / "clip.mp4")[1] == 40


def test_frames_that_fail_leave_no_encoder_behind(tmp_path, small_clip, provenance):
    def failing():
        yield from small_clip
        raise BrokenPipeError("of the frames, not of the encoder")

    with pytest.raises(BrokenPipeError, match="of the frames"):
        write_video(tmp_path / "clip.mp4", failing(), 6, 95, provenance)
    assert "ffmpeg" not in [child.name() for child in psutil.Process().children()]


def test_reading_may_stop_early(tmp_path, small_clip, provenance):
    write_video(tmp_path / "clip.mp4", small_clip, 6, 95, provenance)
    read = read_frames(tmp_path / "clip.mp4")
    next(read)
    read.close()
    assert "ffmpeg" not in [child.name() for child in psutil.Process().children()]


def test_frames_of_another_size_are_refused(tmp_path, small_clip, provenance):
    with pytest.raises(AssertionError, match="one size"):
        write_video(tmp_path / "clip.mp4", [small_clip[0], small_clip[0, :32]], 6, 95, provenance)
