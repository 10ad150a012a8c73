"""Colours of files become sRGB; numbers of any kind become bytes."""

from pathlib import Path

import cv2
import imageio.v3
import numpy as np
import pytest
import tifffile
from PIL import Image

from sgm.errors import UserError
from sgm.inputs import image as image_module
from sgm.inputs.colours import to_rgb_or_rgba
from sgm.inputs.image import over_white, read_image

CASES = Path(__file__).parents[1] / "cases"
TRUTH = np.asarray(Image.open(CASES / "truth_srgb.png").convert("RGB"), int)
GREY = np.linspace(0, 1, 64 * 48).reshape(48, 64)


@pytest.mark.parametrize("name", ["icc_p3.jpg", "icc_p3.tiff", "icc_adobe.png"])
def test_embedded_profiles_are_honoured(name):
    found = np.asarray(read_image(CASES / name), int)
    assert np.abs(found - TRUTH).max() <= 4
    with Image.open(CASES / name) as image:
        plain = np.asarray(image.convert("RGB"), int)
        in_memory = np.asarray(over_white(image), int)
    assert np.abs(plain - TRUTH).max() > 20, "without its profile it shows something else"
    assert np.abs(in_memory - TRUTH).max() <= 4


def p3_profile() -> bytes:
    with Image.open(CASES / "icc_p3.tiff") as image:
        return image.info["icc_profile"]


@pytest.mark.parametrize("mode", ["RGBA", "P"])
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_profiles_of_cut_outs_and_palettes(tmp_path, mode, suffix):
    with Image.open(CASES / "icc_p3.tiff") as image:
        image = image.convert("RGB")
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    else:
        image = image.quantize(256)
    file = tmp_path / f"image.{suffix}"
    image.save(file, lossless=True, icc_profile=p3_profile())
    found = read_image(file)
    assert np.abs(np.asarray(found.convert("RGB"), int) - TRUTH)[-40:].max() <= (4 if mode == "RGBA" else 12)
    if mode == "RGBA":
        assert np.array_equal(found.getchannel("A"), image.getchannel("A"))


def test_a_damaged_profile_counts_as_srgb():
    damaged = Image.fromarray((GREY * 255).astype(np.uint8))
    damaged.info["icc_profile"] = b"no profile"
    assert np.array_equal(np.asarray(to_rgb_or_rgba(damaged))[..., 0], (GREY * 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("values", "tolerance"),
    [
        ((GREY * 65535).astype(np.uint16), 1),
        ((GREY * 32767).astype(np.int16), 1),
        ((GREY * (2**32 - 1)).astype(np.uint32), 1),
        (GREY.astype(np.float16), 1),
        (GREY.astype(np.float32), 1),
        (GREY, 1),
        ((GREY * 255).astype(np.float32), 1),
        (np.where(GREY > 0.999, 1.01, GREY).astype(np.float32), 1),
        (np.repeat(GREY[..., None], 3, axis=-1).astype(np.float32), 1),
        (np.repeat((GREY[..., None] * 65535).astype(np.uint16), 3, axis=-1), 1),
    ],
    ids=lambda it: f"{it.dtype}{it.shape}" if isinstance(it, np.ndarray) else None,
)
def test_tiffs_of_all_kinds_of_numbers(tmp_path, values, tolerance):
    photometric = "rgb" if values.ndim == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "image.tiff", values, photometric=photometric)
    found = np.asarray(read_image(tmp_path / "image.tiff"), float)
    assert found.shape == (48, 64, 3)
    assert np.abs(found - GREY[..., None] * 255).max() <= tolerance


@pytest.mark.parametrize(
    "values",
    [
        (GREY * 65535).astype(np.uint16),
        np.repeat((GREY[..., None] * 65535).astype(np.uint16), 3, axis=-1),
        np.repeat((GREY[..., None] * 65535).astype(np.uint16), 4, axis=-1),
        GREY.astype(np.float32),
    ],
    ids=lambda it: f"{it.dtype}{it.shape}",
)
def test_deep_tiffs_compressed_by_lzw(tmp_path, values):
    file, lzw = tmp_path / "image.tiff", 5  # TIFF 6.0, tag 259
    assert cv2.imwrite(str(file), values, [cv2.IMWRITE_TIFF_COMPRESSION, lzw])
    with Image.open(file) as image:
        assert image.info["compression"] == "tiff_lzw"
    found = np.asarray(read_image(file), float)
    assert found.shape == (48, 64, max(3, values.shape[-1] if values.ndim == 3 else 1))
    assert np.abs(found - GREY[..., None] * 255).max() <= 1


def test_deep_tiffs_channel_by_channel(tmp_path):
    values = np.stack([GREY, GREY / 2, 1 - GREY])
    tifffile.imwrite(
        tmp_path / "a.tiff", (values * 65535).astype(np.uint16), photometric="rgb", planarconfig="separate"
    )
    found = np.asarray(read_image(tmp_path / "a.tiff"), float)
    assert np.abs(found - values.transpose(1, 2, 0) * 255).max() <= 1


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_premultiplied_colours_of_deep_tiffs(tmp_path, dtype):
    alpha = 0.25 + 0.75 * GREY
    values = np.stack([0.5 * alpha, alpha, 0.2 * alpha, alpha], axis=-1) * (65535 if dtype == "uint16" else 1)
    tifffile.imwrite(tmp_path / "a.tiff", values.astype(dtype), photometric="rgb", extrasamples=["assocalpha"])
    found = np.asarray(read_image(tmp_path / "a.tiff"), float)
    assert np.abs(found[..., :3] - [127.5, 255, 51]).max() <= 4
    assert np.abs(found[..., 3] - alpha * 255).max() <= 1


def test_a_tiff_of_many_channels_is_no_picture(tmp_path):
    tifffile.imwrite(tmp_path / "a.tiff", np.stack([GREY] * 5), photometric="minisblack", planarconfig="separate")
    with pytest.raises(UserError, match=r"its shape is \(5, 48, 64\), which is no picture's"):
        read_image(tmp_path / "a.tiff")


def test_white_as_zero_is_no_negative(tmp_path):
    tifffile.imwrite(tmp_path / "image.tiff", ((1 - GREY) * 65535).astype(np.uint16), photometric="miniswhite")
    assert np.abs(np.asarray(read_image(tmp_path / "image.tiff"), float)[..., 0] - GREY * 255).max() <= 1
    ramp = np.asarray(read_image(CASES / "u16_miniswhite.tiff"), int)[..., 0]
    assert (ramp.min(), ramp.max()) == (0, 255)


def test_a_peak_just_above_white_is_not_black():
    assert np.asarray(read_image(CASES / "f32_overshoot.tiff")).mean() > 100


@pytest.mark.parametrize("suffix", ["heic", "avif", "jfif", "gif"])
def test_pictures_of_phones_and_browsers(tmp_path, suffix):
    import pillow_heif

    pillow_heif.register_heif_opener()
    picture = Image.fromarray(TRUTH.astype(np.uint8))
    picture.save(tmp_path / f"a.{suffix}", format={"heic": "HEIF", "jfif": "JPEG"}.get(suffix), quality=95)
    found = np.asarray(read_image(tmp_path / f"a.{suffix}"), int)
    assert np.abs(found - TRUTH).mean() < 8


def test_the_first_frame_of_a_video(tmp_path):
    frames = np.stack([np.full((64, 64, 3), level, np.uint8) for level in (200, 100, 20)])
    imageio.v3.imwrite(tmp_path / "a.mp4", frames, plugin="FFMPEG", fps=5)
    assert np.abs(np.asarray(read_image(tmp_path / "a.mp4"), int) - 200).max() <= 6
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"broken\.mp4 can't be read"):
        read_image(tmp_path / "broken.mp4")


def test_a_jpeg_of_too_many_scans_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    file = tmp_path / "a.jpg"
    Image.fromarray(TRUTH.astype(np.uint8)).save(file, progressive=True)
    assert read_image(file).size == (128, 128)
    monkeypatch.setattr(image_module, "MAX_SCANNED_PIXELS", 5 * 128 * 128)
    with pytest.raises(UserError, match="more than 5 scans, which would take minutes"):
        read_image(file)


def test_what_follows_a_jpegs_end_or_lies_in_its_segments_is_no_scan(tmp_path, monkeypatch):
    file, looks_like_scans = tmp_path / "a.jpg", b"\xff\xda\0\x02" * 50
    Image.fromarray(TRUTH.astype(np.uint8)).save(file, comment=looks_like_scans)
    with file.open("ab") as photo:
        photo.write(looks_like_scans)  # as of the video in a phone's motion photo
    monkeypatch.setattr(image_module, "MAX_SCANNED_PIXELS", 5 * 128 * 128)
    assert read_image(file).size == (128, 128)
