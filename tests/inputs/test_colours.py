"""Colours of files become sRGB; numbers of any kind become bytes."""

import tracemalloc
import zlib
from pathlib import Path

import cv2
import imageio.v3
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

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


def test_pictures_with_srgbs_own_profile_are_not_computed_anew(monkeypatch):
    converted = []
    through = ImageCms.profileToProfile

    def counted(image, *arguments, **options):
        converted.append(image.size)
        return through(image, *arguments, **options)

    monkeypatch.setattr(ImageCms, "profileToProfile", counted)
    image = Image.fromarray(TRUTH.astype(np.uint8))
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(np.asarray(to_rgb_or_rgba(image)), TRUTH)
    assert image.size not in converted
    image.info["icc_profile"] = p3_profile()
    to_rgb_or_rgba(image)
    assert image.size in converted


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


RAMPS = np.stack([GREY, GREY[:, ::-1], 1 - GREY], axis=-1)
COMPRESSIONS = {"lzw": 5, "deflate": 8, "packbits": 32773}


@pytest.mark.parametrize(
    "values",
    [(GREY * 65535).astype(np.uint16), (RAMPS * 65535).astype(np.uint16), GREY.astype(np.float32),
     RAMPS.astype(np.float32), RAMPS],
    ids=lambda values: f"{values.dtype}{values.shape}",
)  # fmt: skip
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("with_predictor", [False, True])
def test_compressed_tiffs_of_deep_numbers(tmp_path, values, compression, with_predictor):
    kind = 2 if values.dtype.kind == "u" else 3  # TIFF's predictors of integers and of floats
    predictor = kind if with_predictor and compression != "packbits" else 1
    file = tmp_path / "image.tiff"
    options = [cv2.IMWRITE_TIFF_COMPRESSION, COMPRESSIONS[compression], cv2.IMWRITE_TIFF_PREDICTOR, predictor]
    assert cv2.imwrite(file, values[..., ::-1] if values.ndim == 3 else values, options)
    found = np.asarray(read_image(file), float)
    expected = values.astype(float) / (65535 if values.dtype == np.uint16 else 1) * 255
    assert np.abs(found - (expected if values.ndim == 3 else expected[..., None])).max() <= 1


def test_a_compressed_tiff_unpacks_no_more_than_its_picture_takes(tmp_path):
    file = tmp_path / "bomb.tiff"
    tifffile.imwrite(file, GREY.astype(np.float32), compression="zlib", rowsperstrip=48)
    with tifffile.TiffFile(file) as tiff:
        places = [tiff.pages.first.tags[tag].valueoffset for tag in ("StripOffsets", "StripByteCounts")]
    content, bomb = bytearray(file.read_bytes()), zlib.compress(bytes(200_000_000))
    for place, value in zip(places, (len(content), len(bomb)), strict=True):
        content[place : place + 4] = value.to_bytes(4, "little")
    file.write_bytes(content + bomb)
    tracemalloc.start()
    try:
        read_image(file)
    except UserError as error:
        assert "compressed data can't be read" in str(error)  # noqa: PT017  # either answer is right, as long as it is small
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_deep_tiff_cut_in_half_is_refused(tmp_path, compression, capfd):
    file = tmp_path / "half.tiff"
    noise = np.random.default_rng(0).random((64, 64, 3), np.float32)
    tifffile.imwrite(file, noise, photometric="rgb", compression=compression)  # the tags come first
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=r"half\.tiff can't be read"):
        read_image(file)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("values", [GREY.astype(np.float16), np.stack([GREY, GREY], axis=-1).astype(np.float32)])
def test_a_compressed_tiff_that_would_be_misread_is_refused(tmp_path, values):
    extra = {"extrasamples": ["unassalpha"], "planarconfig": "contig"} if values.ndim == 3 else {}
    tifffile.imwrite(tmp_path / "a.tiff", values, photometric="minisblack", compression="zlib", **extra)
    with pytest.raises(UserError, match="only without compression"):
        read_image(tmp_path / "a.tiff")


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


def test_of_a_photo_with_a_gain_map_the_photo_is_read(tmp_path):
    photo, gain = Image.fromarray(TRUTH.astype(np.uint8)), Image.new("RGB", (64, 64), "white")
    photo.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[gain], quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    assert np.abs(np.asarray(read_image(tmp_path / "a.jpg"), int) - TRUTH).mean() < 8


@pytest.mark.parametrize("major", [b"mif1", b"msf1", b"miaf"])
@pytest.mark.parametrize("kind", ["avif", "heic"])
def test_the_compatible_brands_tell_avif_from_heic(tmp_path, kind, major):
    import pillow_heif

    pillow_heif.register_heif_opener()
    file = tmp_path / f"a.{kind}"
    Image.fromarray(TRUTH.astype(np.uint8)).save(file, format={"heic": "HEIF"}.get(kind), quality=95)
    content = bytearray(file.read_bytes())
    assert content[8:12] == kind.encode()
    assert kind.encode() in content[16 : content[3]], "the compatible brands"
    content[8:12] = major
    file.write_bytes(content)
    assert np.abs(np.asarray(read_image(file), int) - TRUTH).mean() < 8


def test_the_first_frame_of_a_video(tmp_path):
    frames = np.stack([np.full((64, 64, 3), level, np.uint8) for level in (200, 100, 20)])
    imageio.v3.imwrite(tmp_path / "a.mp4", frames, plugin="FFMPEG", fps=5)
    assert np.abs(np.asarray(read_image(tmp_path / "a.mp4"), int) - 200).max() <= 6
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"broken\.mp4 can't be read"):
        read_image(tmp_path / "broken.mp4")


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi"])
def test_videos_of_every_suffix(tmp_path, suffix):
    codec = {".webm": "libvpx-vp9"}.get(suffix, "libx264")
    frames = np.full((3, 64, 64, 3), 200, np.uint8)
    imageio.v3.imwrite(tmp_path / f"a{suffix}", frames, plugin="FFMPEG", fps=5, codec=codec)
    assert np.abs(np.asarray(read_image(tmp_path / f"a{suffix}"), int) - 200).max() <= 6


def test_a_playlist_named_video_opens_no_other_file(tmp_path):
    frames = np.full((3, 64, 64, 3), 200, np.uint8)
    imageio.v3.imwrite(tmp_path / "secret.mp4", frames, plugin="FFMPEG", fps=5)
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    with pytest.raises(UserError, match=r"a\.mp4 can't be read"):
        read_image(tmp_path / "a.mp4")


def test_a_video_over_the_limit_is_refused(tmp_path, monkeypatch):
    imageio.v3.imwrite(tmp_path / "a.mp4", np.zeros((3, 64, 64, 3), np.uint8), plugin="FFMPEG", fps=5)
    monkeypatch.setattr(image_module, "MAX_PIXELS", 64 * 64 - 1)
    with pytest.raises(UserError, match=r"a\.mp4 can't be read"):
        read_image(tmp_path / "a.mp4")


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
