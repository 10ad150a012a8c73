import math
import os
import struct
import subprocess
import sys
import warnings
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from sgm.errors import UserError
from sgm.inputs.find import check_image_path
from sgm.inputs.image import fit_image, fit_size, image_to_tensor, over_white, read_image, to_rgb_or_rgba

ROOT = Path(__file__).parents[2]
WIDE, TINY = (1024, 576), (128, 128)


def ramps(width=40, height=30, channels=3):
    """Each channel its own pattern, so that swaps, flips and crops show."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([across, down, 255 - across, 255 - down][:channels], axis=-1).astype(np.uint8)


def png(path, bit_depth, colour_type, rows, *chunks):
    """Write a PNG by hand: depths and chunks that Pillow reads and does not write."""
    height, width = rows.shape[:2]
    data = b"".join(b"\0" + row.tobytes() for row in rows.astype(">u2" if bit_depth == 16 else "u1"))
    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    all_chunks = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in all_chunks)
    )
    return path


def read_array(path):
    return np.asarray(read_image(path), dtype=int)


# ---- read_image


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_rgb_files_come_back_pixel_for_pixel(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(ramps()).save(path, lossless=True)
    image = read_image(path)
    assert image.mode == "RGB"
    assert (np.asarray(image) == ramps()).all()


def test_grey_and_black_and_white_files_become_rgb(tmp_path):
    grey = ramps()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey > 100).save(tmp_path / "bits.png")
    assert (read_array(tmp_path / "grey.png") == grey[..., None]).all()
    assert (read_array(tmp_path / "bits.png") == 255 * (grey > 100)[..., None]).all()


def test_alpha_is_kept(tmp_path):
    rgba = ramps(channels=4)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    Image.fromarray(rgba[..., [0, 3]]).save(tmp_path / "la.png")
    assert (read_array(tmp_path / "rgba.png") == rgba).all()
    assert (read_array(tmp_path / "la.png") == rgba[..., [0, 0, 0, 3]]).all()


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palettes_with_and_without_transparency(tmp_path, suffix):
    indices = np.arange(20 * 30).reshape(20, 30).astype(np.uint8) % 3
    colours = np.array([[255, 0, 0], [0, 128, 0], [10, 20, 250]])
    image = Image.fromarray(indices)
    image.putpalette(colours.astype(np.uint8).tobytes())
    image.save(tmp_path / f"opaque.{suffix}")
    image.save(tmp_path / f"clear.{suffix}", transparency=1)
    assert (read_array(tmp_path / f"opaque.{suffix}") == colours[indices]).all()
    clear = read_array(tmp_path / f"clear.{suffix}")
    assert (clear[..., 3] == np.where(indices == 1, 0, 255)).all()
    assert (clear[..., :3] == colours[indices])[indices != 1].all()


def test_a_palette_with_an_alpha_for_each_colour(tmp_path):
    indices = np.arange(20 * 30).reshape(20, 30).astype(np.uint8) % 2
    image = Image.fromarray(indices)
    image.putpalette(bytes([255, 0, 0, 0, 0, 255]))
    image.save(tmp_path / "p.png", transparency=bytes([128, 255]))
    assert (read_array(tmp_path / "p.png")[..., 3] == np.where(indices == 0, 128, 255)).all()


def test_cmyk_photos_become_rgb(tmp_path):
    Image.new("CMYK", (40, 30), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    assert read_array(tmp_path / "red.jpg")[10, 10] == pytest.approx((255, 0, 0), abs=4)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    expected = np.round(values / 257)
    png(tmp_path / "grey.png", 16, 0, values)
    Image.fromarray(values).save(tmp_path / "grey.tif")
    dark = values // 512  # no pixel over 127: still 16 bits, so near black
    png(tmp_path / "dark.png", 16, 0, dark)
    assert (read_array(tmp_path / "grey.png") == expected[..., None]).all()
    assert (read_array(tmp_path / "grey.tif") == expected[..., None]).all()
    assert read_array(tmp_path / "dark.png").max() == 0


def test_16_bit_colour_and_alpha_are_scaled(tmp_path):
    rgba = np.stack([np.linspace(0, 65535, 1200).reshape(30, 40)] * 4, axis=-1) * [1, 0.5, 0.25, 1]
    png(tmp_path / "rgb.png", 16, 2, rgba[..., :3])
    png(tmp_path / "rgba.png", 16, 6, rgba)
    assert np.abs(read_array(tmp_path / "rgb.png") - rgba[..., :3] / 257).max() <= 1
    assert np.abs(read_array(tmp_path / "rgba.png") - rgba / 257).max() <= 1


def test_16_bit_transparent_colour(tmp_path):
    values = np.where(np.arange(1200).reshape(30, 40) % 2, 40000, 1000)
    png(tmp_path / "grey.png", 16, 0, values, (b"tRNS", struct.pack(">H", 40000)))
    assert (read_array(tmp_path / "grey.png")[..., 3] == np.where(values == 40000, 0, 255)).all()


@pytest.mark.parametrize(
    ("dtype", "top", "white"),
    [(np.float32, 1, 1), (np.float32, 0.5, 1),
     (np.float32, 255, 255), (np.float32, 4095, 65535), (np.float32, 1e6, 1e6),
     (np.int32, 200, 255), (np.int32, 65535, 65535), (np.int32, 10**9, 10**9)],
)  # fmt: skip
def test_32_bit_grey_takes_the_smallest_usual_white(tmp_path, dtype, top, white):
    values = (ramps()[..., 0] / 255.0 * top).astype(dtype)
    Image.fromarray(values).save(tmp_path / "grey.tif")
    assert np.abs(read_array(tmp_path / "grey.tif") - (values / white * 255)[..., None]).max() <= 0.51


def test_floats_that_are_no_brightness_are_black_and_none_wraps_around():
    values = np.full((20, 20), 1.0, np.float32)
    values[0, :3] = np.nan, np.inf, -5
    grey = np.asarray(to_rgb_or_rgba(Image.fromarray(values)))
    assert (grey[0, :3] == 0).all()
    assert (grey[1:] == 255).all()


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV",
     "I", "F", "I;16", "I;16L", "I;16B"],
)  # fmt: skip
def test_white_is_white_in_every_mode(mode):
    white = {
        "LAB": (255, 128, 128),
        "YCbCr": (255, 128, 128),
        "HSV": (0, 0, 255),
        "CMYK": (0, 0, 0, 0),
        "P": 0,
        "PA": 0,
    }
    deep = {"I": 65535, "F": 1.0, "I;16": 65535, "I;16L": 65535, "I;16B": 65535, "L": 255, "1": 1}
    colour = (white | deep).get(mode, (255,) * len(Image.new(mode, (1, 1)).getbands()))
    image = Image.new(mode, (20, 20), colour)
    if mode in ("P", "PA"):
        image.putpalette([255, 255, 255])
    assert to_rgb_or_rgba(image).mode in ("RGB", "RGBA")
    assert np.asarray(over_white(image)).min() >= 254
    assert over_white(image).mode == "RGB"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_exif_orientation_is_honoured(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(ramps()).save(path, exif=exif)
    with Image.open(path) as file:
        expected = ImageOps.exif_transpose(file)
        assert (np.asarray(read_image(path)) == np.asarray(expected)).all()
    assert expected.size == ((30, 40) if orientation >= 5 else (40, 30))


def test_damaged_exif_does_not_lose_the_photo(tmp_path):
    Image.fromarray(ramps()).save(tmp_path / "a.webp", lossless=True, exif=b"Exif\0\0MM\0U\0\0\0\x08")
    Image.fromarray(ramps()).save(tmp_path / "b.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09")
    assert (read_array(tmp_path / "a.webp") == ramps()).all()
    assert read_image(tmp_path / "b.jpg").size == (40, 30)


@pytest.mark.parametrize("text_for_a_ratio", [b"abc\0", b"\0\0\0\0"])
def test_a_damaged_tag_beside_the_orientation_does_not_lose_the_photo(tmp_path, text_for_a_ratio):
    tags = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack(">HHI", 0x011A, 2, 4) + text_for_a_ratio
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 2) + tags + bytes(4)
    Image.fromarray(ramps()).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (30, 40)


@pytest.mark.parametrize("suffix", ["gif", "tiff", "webp", "png"])
def test_the_first_of_several_frames_is_taken(tmp_path, suffix):
    first, second = Image.new("RGB", (40, 30), (250, 0, 0)), Image.new("RGB", (40, 30), (0, 0, 250))
    first.save(tmp_path / f"many.{suffix}", save_all=True, append_images=[second], lossless=True)
    assert (read_array(tmp_path / f"many.{suffix}")[..., :3] == (250, 0, 0)).all()


def test_the_content_decides_not_the_suffix(tmp_path):
    Image.fromarray(ramps()).save(tmp_path / "really_a_png.jpg", format="PNG")
    assert (read_array(tmp_path / "really_a_png.jpg") == ramps()).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tiff"])
def test_truncated_files_are_told(tmp_path, suffix):
    path = tmp_path / f"half.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"can't be read as an image") as error:
        read_image(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"just some text\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n"])
def test_other_files_named_png_are_told(tmp_path, content):
    path = tmp_path / "no_image.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match="no known image format"):
        read_image(path)


def test_missing_files_and_folders_are_told(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(UserError, match="can't be read as an image"):
        read_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
@pytest.mark.parametrize("name", ["a.png", "a.mp4"])
def test_a_fifo_is_refused_and_not_waited_for(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    script = "import sys, pathlib; from sgm.inputs.image import read_image; read_image(pathlib.Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", script, path], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert f"UserError: {path} can't be read as an image (Not a regular file): give a complete JPEG" in done.stderr
    with pytest.raises(UserError, match="does not exist as a file: give the path of an image"):
        check_image_path(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device on this system")
def test_a_device_is_refused():
    with pytest.raises(
        UserError, match=r"^/dev/zero can't be read as an image \(Not a regular file\): give a complete JPEG"
    ):
        read_image(Path("/dev/zero"))


@pytest.mark.parametrize("size", [(12_500, 12_500), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_refused_before_they_are_decoded(tmp_path, size):
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    path = png(tmp_path / "bomb.png", 8, 2, np.zeros((1, 1, 3)))
    path.write_bytes(
        path.read_bytes()[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + path.read_bytes()[33:]
    )
    with pytest.raises(UserError, match="too large: images of up to 150 megapixels"):
        read_image(path)


def test_sizes_that_pillow_only_warns_of_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # 1200 pixels: Pillow would warn
    Image.fromarray(ramps()).save(tmp_path / "large.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read_image(tmp_path / "large.png").size == (40, 30)
    assert caught == []


@pytest.mark.parametrize("size", [(1, 1), (15, 400), (400, 15)])
def test_specks_and_lines_are_refused(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "speck.png")
    with pytest.raises(UserError, match=f"only {size[0]}x{size[1]} pixels"):
        read_image(tmp_path / "speck.png")


def test_over_white_blends_by_alpha():
    image = Image.fromarray(np.array([[[0, 100, 200, a] for a in (0, 102, 255)]], np.uint8))
    assert np.asarray(over_white(image)).tolist() == [[[255, 255, 255], [153, 193, 233], [0, 100, 200]]]


# ---- fit_size


def kept(size, image_size):
    """The share of the image that a centre crop to this aspect keeps, exactly."""
    ratio = Fraction(size[0] * image_size[1], size[1] * image_size[0])
    return min(ratio, 1 / ratio)


@pytest.mark.parametrize(("trained", "multiple"), [(WIDE, 64), ((576, 576), 64), (TINY, 32), ((64, 64), 32)])
def test_sizes_follow_the_rule_by_brute_force(trained, multiple):
    budget = math.prod(trained)
    sides = range(multiple, budget // multiple + 1, multiple)
    allowed = [(w, h) for w in sides for h in sides if 0.75 * budget <= w * h <= budget]
    rng = np.random.default_rng(multiple)
    for _ in range(100):
        image_size = tuple(rng.integers(16, 5000, 2).tolist())
        if max(image_size) > 8 * min(image_size) or all(side % multiple == 0 for side in image_size):
            continue
        chosen = fit_size(image_size, trained, multiple)
        assert chosen in allowed
        best = max(allowed, key=lambda size: (kept(size, image_size), math.prod(size)))
        assert (kept(chosen, image_size), math.prod(chosen)) == (kept(best, image_size), math.prod(best))


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [
        ((1920, 1080), (1024, 576)), ((1080, 1920), (576, 1024)), ((3840, 2160), (1024, 576)),  # 16:9
        ((4032, 3024), (768, 576)), ((3024, 4032), (576, 768)),  # 4:3
        ((6000, 4000), (896, 576)),  # 3:2
        ((2560, 1600), (896, 576)),  # 16:10
        ((3000, 3000), (768, 768)), ((500, 500), (768, 768)),  # 1:1
        ((512, 512), (512, 512)), ((64, 64), (64, 64)), ((1024, 576), (1024, 576)),  # as they are
        ((1088, 576), (960, 512)),  # divisible, and over the budget
    ],
)  # fmt: skip
def test_usual_photos_get_sensible_sizes(image_size, expected):
    assert fit_size(image_size, WIDE, 64) == expected


def test_usual_aspects_lose_little_and_fill_the_budget():
    for aspect in np.arange(1, 3, 0.01):
        image_size = (round(1999 * aspect), 1999)
        size = fit_size(image_size, WIDE, 64)
        assert kept(size, image_size) > 0.95
        assert math.prod(size) >= 0.75 * math.prod(WIDE)


def test_given_sides_hold():
    assert fit_size((4000, 3000), WIDE, 64, width=1280, height=704) == (1280, 704)
    assert fit_size((4000, 3000), WIDE, 64, width=512) == (512, 384)
    assert fit_size((4000, 3000), WIDE, 64, height=512) == (704, 512)  # 682.7 wide
    assert fit_size((512, 512), WIDE, 64, width=256) == (256, 256)
    assert fit_size((4000, 600), WIDE, 64, width=128) == (128, 64)  # never nothing


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"width": 1000}, "width 1000 .* divisible by 64, .* such as 1024"),
        ({"width": 512, "height": 500}, "height 500 .* such as 512"),
        ({"height": 0}, "height 0 .* such as 64"),
        ({"width": -64}, "width -64 .* such as 64"),
        ({"width": 64 * 10**6}, "from 64 to 4096, such as 4096"),
        ({"width": 4096}, "height, which follows from the width, 7296"),
    ],
)
def test_sides_that_will_not_do_are_told(given, told):
    with pytest.raises(UserError, match=told):
        fit_size((900, 1600), WIDE, 64, **given)


def test_ribbons_need_sides_of_the_users_own():
    with pytest.raises(UserError, match="5000x100 pixels, longer than 8:1"):
        fit_size((5000, 100), WIDE, 64)
    assert fit_size((5000, 100), WIDE, 64, width=1024, height=256) == (1024, 256)
    assert fit_size((100, 800), WIDE, 64) == (256, 2048)
    with pytest.raises(UserError, match="8192x64 pixels, longer than 8:1"):
        fit_size((8192, 64), WIDE, 64)


# ---- fit_image


@pytest.mark.parametrize("image_size", [(400, 200), (200, 400), (300, 300), (61, 47), (1600, 90)])
@pytest.mark.parametrize("size", [(128, 64), (64, 128), (96, 96)])
def test_fitting_scales_evenly_about_the_centre(image_size, size):
    # Red is the place across and green the place down, in pixels from the centre: scale is the same for both.
    across, down = np.meshgrid(*((np.arange(n) + 0.5 - n / 2) for n in image_size))
    scale = min(image_size[0] / size[0], image_size[1] / size[1])
    unit = 100 / (scale * max(size) / 2)  # levels of brightness a pixel, so that the kept part lies within 28..228
    pixels = np.stack([128 + unit * across, 128 + unit * down, 0 * across], axis=-1).clip(0, 255).round()
    fitted = np.asarray(fit_image(Image.fromarray(pixels.astype(np.uint8)), size), dtype=float)
    assert fitted.shape == (size[1], size[0], 3)
    out_across, out_down = np.meshgrid(*((np.arange(n) + 0.5 - n / 2) * scale for n in size))
    inner = slice(3, -3)  # resampling reaches over the edge there
    assert np.abs(fitted[..., 0] - (128 + unit * out_across))[inner, inner].max() < 2
    assert np.abs(fitted[..., 1] - (128 + unit * out_down))[inner, inner].max() < 2


def test_fitting_is_antialiased():
    board = Image.fromarray((np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)).convert("RGB")
    assert np.abs(np.asarray(fit_image(board, (96, 96)), dtype=float)[4:-4, 4:-4] - 127.5).max() < 3


def test_an_image_of_the_right_size_is_untouched():
    image = Image.fromarray(ramps())
    assert (np.asarray(fit_image(image, (40, 30))) == ramps()).all()


def test_fitting_a_line_needs_no_memory_for_what_is_cropped():
    assert fit_image(Image.new("RGB", (1, 60_000), "red"), (1024, 576)).getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize(("image_size", "size"), [((29, 17), (448, 64)), ((21, 29), (320, 448))])
def test_rounding_never_reaches_over_the_edge(image_size, size):
    assert fit_image(Image.new("RGB", image_size, "red"), size).getcolors() == [(math.prod(size), (255, 0, 0))]


def test_tensors_are_channels_first_from_minus_one_to_one():
    tensor = image_to_tensor(Image.fromarray(np.array([[[0, 51, 255], [255, 102, 0]]], np.uint8)))
    assert tensor.shape == (1, 3, 1, 2)
    assert str(tensor.dtype) == "torch.float32"
    assert tensor[0, :, 0, 0].tolist() == pytest.approx([-1, -0.6, 1])
    assert tensor[0, :, 0, 1].tolist() == pytest.approx([1, -0.2, -1])
