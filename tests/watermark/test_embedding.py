"""The watermark against the golden, the invisible-watermark package's encoder, and its decoder after compression."""

from pathlib import Path

import cv2
import imwatermark
import numpy as np
import pytest
import skimage.data
from PIL import Image

from sgm.outputs.pictures import write_frames
from sgm.outputs.provenance import Provenance
from sgm.outputs.video import read_video, write_video
from sgm.watermark.embedding import MESSAGE_BITS, can_watermark, embed_watermark
from sgm.watermark.reading import read_bits

DATA = Path(__file__).parent.parent / "reference"


def pan_over(photograph, frames=8, height=576, width=1024):
    """A clip, uint8 (T, H, W, 3): a window gliding over a photograph, 3 pixels right and 1 down a frame."""
    spare_x, spare_y = 3 * frames, frames
    scale = max((width + spare_x) / photograph.shape[1], (height + spare_y) / photograph.shape[0])
    size = (round(photograph.shape[1] * scale) + 1, round(photograph.shape[0] * scale) + 1)
    large = np.asarray(Image.fromarray(photograph).resize(size, Image.Resampling.BICUBIC))
    top = (large.shape[0] - height - spare_y) // 2
    return np.stack([large[top + t : top + t + height, 3 * t : 3 * t + width] for t in range(frames)])


def bits_read(frames):
    """How many of the 48 bits the package's decoder reads, by majority over the frames: uint8 (T, H, W, 3) RGB."""
    votes = [bits_by_the_package(frame) for frame in frames]
    return int(np.sum((np.mean(votes, axis=0) > 0.5) == MESSAGE_BITS))


def bits_by_the_package(frame):
    decoder = imwatermark.WatermarkDecoder("bits", 48)
    return decoder.decode(np.ascontiguousarray(frame[..., ::-1]), "dwtDct")


def read_with_opencv(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        found, frame = capture.read()
        if not found:
            return np.stack(frames)[..., ::-1]
        frames.append(frame)


def test_the_message_is_48_bits_most_significant_first():
    assert "".join(map(str, MESSAGE_BITS)) == f"{0xB3EC907BB19E:048b}"


def test_golden():
    before, after = (np.asarray(Image.open(DATA / f"watermark_{name}.png")) for name in ("in", "out"))
    assert np.abs(before.astype(int) - after).max() > 20, "the golden must hold a mark"
    difference = embed_watermark(before[None])[0].astype(int) - after
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(256, 256), (300, 333), (261, 450), (258, 1022)])
def test_equals_the_package_at_sizes_that_blocks_do_not_fill(height, width):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)
    encoder = imwatermark.WatermarkEncoder()
    encoder.set_by_bits(MESSAGE_BITS.tolist())
    for image in (smooth, noise):
        theirs = encoder.encode(np.ascontiguousarray(image[..., ::-1]), "dwtDct")[..., ::-1]
        np.testing.assert_array_equal(embed_watermark(image[None])[0], theirs)


def test_frames_are_marked_one_by_one():
    frames = pan_over(skimage.data.astronaut(), frames=2, height=256, width=320)
    together = embed_watermark(frames)
    np.testing.assert_array_equal(together, [embed_watermark(frame) for frame in frames])
    assert not np.array_equal(together, frames)


def test_small_frames_come_back_unmarked():
    assert not can_watermark(255, 256)
    assert can_watermark(64, 1024)
    assert not can_watermark(7, 20_000), "no block is whole"
    small = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    marked = embed_watermark(small)
    np.testing.assert_array_equal(marked, small)
    assert not np.shares_memory(marked, small)


def test_photographs_keep_their_looks():
    frames = pan_over(skimage.data.coffee(), frames=1)
    error = embed_watermark(frames).astype(float) - frames
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 38
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 2, "the picture's tint must stay"


@pytest.mark.parametrize("photograph", ["astronaut", "coffee", "rocket", "hubble_deep_field"])
def test_survives_jpeg_and_h264(photograph, tmp_path):
    provenance = Provenance("sgm 1.2.3", "svd_tiny")
    clip = pan_over(getattr(skimage.data, photograph)()[..., :3])
    assert bits_read(clip) < 40, "a clip that was never marked must not read as marked"
    marked = embed_watermark(clip)
    write_frames(tmp_path / "frames", marked, 95, provenance)
    write_video(tmp_path / "clip.mp4", marked, 6, 95, provenance)

    jpegs = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "frames").iterdir())]
    assert len(jpegs) == len(clip)
    for frame in (*clip[:2], *jpegs[:2]):
        np.testing.assert_array_equal(read_bits(frame), bits_by_the_package(frame))
    assert bits_read(jpegs) >= 46
    assert bits_read(read_video(tmp_path / "clip.mp4")) >= 46
    if photograph != "coffee":  # its U is so even that OpenCV's coarser colour conversion loses ten bits
        assert bits_read(read_with_opencv(tmp_path / "clip.mp4")) >= 46
