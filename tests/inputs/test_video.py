"""The first frame of videos, whose colours are coded in several ways."""

import subprocess

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from sgm.errors import UserError
from sgm.inputs import video as video_module
from sgm.inputs.image import read_image

LUMA = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114)}  # of red and blue: ITU-R BT.709 and BT.601
COLOURS = np.array([(200, 40, 60), (20, 180, 90)])


def ycbcr(rgb, matrix):
    """8-bit colours in studio range, computed by the standards' own formulas."""
    of_red, of_blue = LUMA[matrix]
    red, green, blue = np.moveaxis(np.asarray(rgb) / 255, -1, 0)
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    chroma = (blue - luma) / (2 * (1 - of_blue)), (red - luma) / (2 * (1 - of_red))
    return np.stack([16 + 219 * luma, 128 + 224 * chroma[0], 128 + 224 * chroma[1]], axis=-1).round().astype(np.uint8)


def write_video(path, yuv, *tags, codec=("libx264", "-crf", "1"), pixels="yuv444p"):
    """One frame, (height, width, 3), whose numbers FFmpeg stores as they are."""
    height, width = yuv.shape[:2]
    source = ["-f", "rawvideo", "-pix_fmt", pixels, "-s", f"{width}x{height}", "-i", "pipe:0"]
    tagged = ["-vf", f"setparams={':'.join(tags)}"] if tags else []
    command = [get_ffmpeg_exe(), "-v", "error", "-y", *source, *tagged, "-c:v", *codec, "-pix_fmt", pixels, str(path)]
    subprocess.run(command, input=np.moveaxis(yuv, -1, 0).tobytes(), check=True)


def two_halves(width, height):
    return COLOURS[(np.arange(width) >= width // 2).astype(int)][None].repeat(height, axis=0)


@pytest.mark.parametrize(
    ("size", "matrix", "tags"),
    [
        ((1280, 720), "bt709", ()),
        ((720, 1280), "bt709", ()),
        ((640, 480), "bt601", ()),
        ((720, 576), "bt601", ()),
        ((1280, 720), "bt601", ("colorspace=smpte170m",)),
        ((640, 480), "bt709", ("colorspace=bt709",)),
    ],
)
def test_untagged_hd_counts_as_bt709_and_what_is_tagged_as_its_tag(tmp_path, size, matrix, tags):
    colours = two_halves(*size)
    write_video(tmp_path / "a.mp4", ycbcr(colours, matrix), *tags)
    found = np.asarray(read_image(tmp_path / "a.mp4"), int)
    assert found.shape == colours.shape
    assert np.abs(found - colours)[:, :: size[0] - 1].max() <= 3


def test_a_video_that_takes_too_long_is_told_in_a_line(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", ycbcr(two_halves(64, 64), "bt601"))
    monkeypatch.setattr(video_module, "SECONDS_FOR_A_FRAME", 0.001)
    with pytest.raises(
        UserError, match=r"a\.mp4 can't be read as an image \(its first frame takes over 0\.001 seconds"
    ):
        read_image(tmp_path / "a.mp4")
