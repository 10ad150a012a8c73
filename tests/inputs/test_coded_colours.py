"""Colours that files name without an ICC profile come out as sRGB."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from sgm.inputs.image import read_image
from tests.inputs.test_video import write_video, ycbcr

CASES = Path(__file__).parents[1] / "cases"
TRUTH = np.asarray(Image.open(CASES / "truth_srgb.png").convert("RGB"), int)
P3, BT2020, BT709 = 12, 9, 1  # ITU-T H.273
SRGB, PQ, HLG, UNSPECIFIED = 13, 16, 18, 2
GREY = np.tile(np.arange(256, dtype=np.uint8), (16, 1))


def in_p3():
    """The picture of TRUTH, but in Display P3's numbers and without its profile."""
    with Image.open(CASES / "icc_p3.tiff") as image:
        return Image.fromarray(np.asarray(image.convert("RGB")))


def srgb(light):
    """IEC 61966-2-1: light from 0 to 1 as sRGB's levels from 0 to 255."""
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def save_png(path, image, *chunks, **options):
    """Save with chunks that Pillow doesn't write, after the header."""
    image.save(path, **options)
    content, added = path.read_bytes(), b""
    for name, data in chunks:
        added += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(content[:33] + added + content[33:])


def cicp(primaries, transfer):
    return b"cICP", bytes([primaries, transfer, 0, 1])


def gama(gamma):
    return b"gAMA", struct.pack(">I", round(gamma * 100_000))


def save_coded(path, image, primaries, transfer):
    """Save a picture whose file names its colours by numbers."""
    if path.suffix == ".png":
        save_png(path, image, cicp(primaries, transfer))
    elif path.suffix == ".heic":
        pillow_heif.register_heif_opener()
        codes = {"color_primaries": primaries, "transfer_characteristics": transfer, "matrix_coefficients": 6}
        image.save(path, quality=100, chroma=444, **codes)
    else:
        image.save(path, quality=100, subsampling="4:4:4")
        content = path.read_bytes()
        assert content.count(b"colrnclx\0\1\0\x0d") == 1
        path.write_bytes(content.replace(b"colrnclx\0\1\0\x0d", b"colrnclx\0" + bytes([primaries, 0, transfer])))


@pytest.mark.parametrize("suffix", ["png", "heic", "avif"])
def test_display_p3_by_its_number(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    save_coded(file, in_p3(), P3, SRGB)
    error = np.abs(np.asarray(read_image(file), int) - TRUTH)
    assert error.mean() < 1.5
    save_coded(file, in_p3(), BT709, SRGB)
    assert np.abs(np.asarray(read_image(file), int) - TRUTH).mean() > 4 * error.mean(), "it shows something else"


@pytest.mark.parametrize(("primaries", "transfer"), [(BT709, SRGB), (BT709, 1), (UNSPECIFIED, 2), (P3, 2), (77, SRGB)])
def test_srgb_and_unknown_numbers_change_nothing(tmp_path, primaries, transfer):
    save_coded(tmp_path / "a.png", in_p3(), primaries, transfer)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), np.asarray(in_p3()))


def test_numbers_count_more_than_a_profile_in_a_png(tmp_path):
    with Image.open(CASES / "icc_p3.tiff") as image:
        profile = image.info["icc_profile"]
    save_png(tmp_path / "a.png", in_p3(), cicp(BT709, SRGB), icc_profile=profile)
    found = np.asarray(read_image(tmp_path / "a.png"))
    assert np.array_equal(found, np.asarray(in_p3()))
    save_png(tmp_path / "a.png", in_p3(), gama(1), icc_profile=profile)
    assert np.abs(np.asarray(read_image(tmp_path / "a.png"), int) - TRUTH).max() <= 4


@pytest.mark.parametrize("gamma", [1, 1 / 1.8, 1 / 2.6])
def test_gamma_of_a_png(tmp_path, gamma):
    image = Image.fromarray(np.stack([GREY, GREY[:, ::-1], GREY // 2], axis=-1))
    image.putalpha(Image.fromarray(GREY))
    save_png(tmp_path / "a.png", image, gama(gamma))
    found, values = np.asarray(read_image(tmp_path / "a.png"), float), np.asarray(image, float)
    expected = srgb((values[..., :3] / 255) ** (1 / gamma))
    assert np.abs(found[..., :3] - expected).max() <= 2.5
    assert np.array_equal(found[..., 3], GREY)


@pytest.mark.parametrize("chunks", [[gama(0.45455)], [gama(1), (b"sRGB", b"\0")], [gama(0)]])
def test_gamma_of_srgb_or_of_no_sense_changes_nothing(tmp_path, chunks):
    save_png(tmp_path / "a.png", in_p3(), *chunks)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), np.asarray(in_p3()))


def test_chromaticities_of_a_png(tmp_path):
    of_p3 = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
    numbers = (b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in of_p3)))
    save_png(tmp_path / "a.png", in_p3(), gama(0.45455), numbers)
    assert np.abs(np.asarray(read_image(tmp_path / "a.png"), int) - TRUTH).max() <= 4
    save_png(tmp_path / "a.png", in_p3(), gama(0.45455), (b"cHRM", bytes(32)))
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), np.asarray(in_p3())), "no primaries at all"


def pq(nits):
    """ITU-R BT.2100: light in candelas per square metre as PQ's values from 0 to 1."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    light = (np.asarray(nits, float) / 10_000) ** m1
    return ((c1 + c2 * light) / (1 + c3 * light)) ** m2


def hlg(nits):
    """ITU-R BT.2100: light of grey on a screen of 1000 candelas per square metre as HLG's values from 0 to 1."""
    scene = (np.asarray(nits, float) / 1000) ** (1 / 1.2)
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


@pytest.mark.parametrize(("transfer", "coded"), [(PQ, pq), (HLG, hlg)])
@pytest.mark.parametrize("suffix", ["png", "heic", "avif"])
def test_hdr_keeps_its_shadows_and_tones_down_its_lights(tmp_path, suffix, transfer, coded):
    nits = np.array([0, 2, 10, 20, 40, 60, 100, 203, 400, 700, 1000])
    values = np.repeat(np.repeat((coded(nits) * 255).round(), 16)[None], 16, axis=0).astype(np.uint8)
    save_coded(tmp_path / f"a.{suffix}", Image.fromarray(values).convert("RGB"), BT2020, transfer)
    found = np.asarray(read_image(tmp_path / f"a.{suffix}"), float)
    assert np.ptp(found, axis=-1).max() <= 3, "grey stays grey"
    levels = found[8, 8::16].mean(axis=-1)
    assert np.abs(levels[:6] - srgb(nits[:6] / 203)).max() <= 4, "as they would be in SDR, but for 8 bits"
    assert (np.diff(levels) > 2).all(), "brighter is brighter"
    assert levels[-1] >= 253


def test_an_hdr_video(tmp_path):
    nits = np.array([2, 10, 20, 40, 60, 203, 1000])
    luma = np.repeat((16 + 219 * pq(nits)).round(), 32)
    yuv = np.stack([np.tile(luma, (64, 1))] + [np.full((64, luma.size), 128)] * 2, axis=-1).astype(np.uint8)
    tags = ("colorspace=bt2020nc", "color_primaries=bt2020", "color_trc=smpte2084")
    write_video(tmp_path / "a.mp4", yuv, *tags)
    levels = np.asarray(read_image(tmp_path / "a.mp4"), float)[32, 16::32]
    assert np.abs(levels[:5] - srgb(nits[:5] / 203)[:, None]).max() <= 5
    assert 190 < levels[5].min() <= levels[5].max() < 230
    assert levels[6].min() >= 250


def test_a_video_of_display_p3(tmp_path):
    red = np.full((64, 64, 3), (234, 51, 35))  # in P3, which is sRGB's pure red
    tags = ("colorspace=bt709", "color_primaries=smpte432", "color_trc=bt709")
    write_video(tmp_path / "a.mov", ycbcr(red, "bt709"), *tags)
    assert np.abs(np.asarray(read_image(tmp_path / "a.mov"), int) - [255, 0, 0]).max() <= 12
