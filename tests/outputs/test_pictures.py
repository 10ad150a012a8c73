"""Picture files, looked at with Pillow."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from sgm.outputs.pictures import durations_ms, write_frames, write_gif, write_webp


def test_frames_are_high_quality_jpegs_without_colour_subsampling(tmp_path, small_clip, provenance):
    write_frames(tmp_path / "frames", small_clip, 95, provenance)
    paths = sorted((tmp_path / "frames").iterdir())
    assert [path.name for path in paths] == ["0000.jpg", "0001.jpg", "0002.jpg", "0003.jpg", "0004.jpg"]
    for path, frame in zip(paths, small_clip, strict=True):
        with Image.open(path) as image:
            assert image.format == "JPEG"
            assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3, "each channel is sampled at every pixel"
            assert max(image.quantization[0]) <= 15, "quality 95 or better"
            assert np.abs(np.asarray(image).astype(float) - frame).mean() < 1.5


def error_of(path, frame):
    with Image.open(path) as image:
        return np.abs(np.asarray(image.convert("RGB"), float) - frame).mean()


def test_quality_is_that_of_jpeg_and_webp(tmp_path, small_clip, provenance):
    for quality in (20, 95):
        write_frames(tmp_path / f"frames{quality}", small_clip, quality, provenance)
        write_webp(tmp_path / f"{quality}.webp", small_clip, 6, quality, provenance)
    for name in ("frames{}/0000.jpg", "{}.webp"):
        low, high = (tmp_path / name.format(quality) for quality in (20, 95))
        assert low.stat().st_size < 0.8 * high.stat().st_size
        assert error_of(high, small_clip[0]) < error_of(low, small_clip[0])


@pytest.mark.parametrize(
    ("fps", "milliseconds"), [(6, [167, 166, 167, 167, 166]), (24, [42, 41, 42, 42, 41]), (0.5, [2000] * 5)]
)
def test_an_animated_webp_plays_all_frames_for_ever(tmp_path, small_clip, provenance, fps, milliseconds):
    write_webp(tmp_path / "clip.webp", small_clip, fps, 95, provenance)
    with Image.open(tmp_path / "clip.webp") as image:
        assert (image.format, image.n_frames, image.info["loop"]) == ("WEBP", 5, 0)
        for frame, shown, picture in zip(small_clip, milliseconds, ImageSequence.Iterator(image), strict=True):
            picture.load()
            assert picture.info["duration"] == shown
            assert np.abs(np.asarray(picture.convert("RGB"), float) - frame).mean() < 4


@pytest.mark.parametrize(
    ("fps", "milliseconds"), [(6, [170, 160, 170, 170, 160]), (24, [40, 40, 40, 50, 40]), (240, [20] * 5)]
)
def test_an_animated_gif_plays_all_frames_for_ever(tmp_path, small_clip, provenance, fps, milliseconds):
    write_gif(tmp_path / "clip.gif", small_clip, fps, provenance)
    with Image.open(tmp_path / "clip.gif") as image:
        assert (image.format, image.n_frames, image.info["loop"]) == ("GIF", 5, 0)
        for frame, shown, picture in zip(small_clip, milliseconds, ImageSequence.Iterator(image), strict=True):
            assert picture.info["duration"] == shown
            assert np.abs(np.asarray(picture.convert("RGB"), float) - frame).mean() < 12


def test_one_frame_is_an_animation_too(tmp_path, small_clip, provenance):
    write_webp(tmp_path / "clip.webp", small_clip[:1], 6, 95, provenance)
    write_gif(tmp_path / "clip.gif", small_clip[:1], 6, provenance)
    for name in ("clip.webp", "clip.gif"):
        with Image.open(tmp_path / name) as image:
            assert image.size == (96, 64)


@pytest.mark.parametrize("fps", [5.9, 12, 24, 30, 48])
def test_a_gif_keeps_its_length(fps):
    durations = durations_ms(100, fps, unit=10, least=2)
    assert abs(sum(durations) - 100_000 / fps) <= 5
    assert set(durations) <= {10 * int(100 / fps), 10 * int(100 / fps) + 10}
