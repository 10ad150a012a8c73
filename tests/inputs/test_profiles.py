"""Pictures with ICC profiles that are made here, against colours computed by the standards' formulas."""

import struct

import numpy as np
import pytest
from PIL import Image

from sgm.inputs.image import read_image

D50 = np.array([0.9642, 1, 0.8249])  # X, Y and Z of ICC's white


def icc_profile(kind: bytes, space: bytes, connection: bytes, parts: dict[bytes, bytes]) -> bytes:
    """An ICC profile, version 2.1 (ICC.1:1998-09), with a name and a white beside the parts given."""
    named = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78) + bytes(1)
    parts = {b"desc": named, b"wtpt": xyz(D50), **parts}
    table, data = struct.pack(">I", len(parts)), b""
    for name, part in parts.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(parts) + len(data), len(part))
        data += part + bytes(-len(part) % 4)
    size = 128 + len(table) + len(data)
    header = struct.pack(">II4s4s4s4s12x", size, 0, b"\x02\x10\0\0", kind, space, connection)
    return (header + b"acsp" + bytes(28) + xyz(D50)[8:]).ljust(128, b"\0") + table + data


def xyz(values) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def linear_grey_profile() -> bytes:
    """Grey whose numbers are light: a curve of gamma 1."""
    curve = b"curv" + bytes(4) + struct.pack(">IHxx", 1, 256)
    return icc_profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": curve})


def srgb_of_xyz(values):
    """X, Y and Z in D50's light as sRGB's levels from 0 to 255, by Lindbloom's matrix for D50 and IEC 61966-2-1."""
    to_srgb = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = (values @ np.array(to_srgb).T).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_a_photo_in_prophoto_rgb(tmp_path):
    primaries = np.array([(0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)])  # ISO 22028-2
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
    matrix = columns * np.linalg.solve(columns, D50)
    curve = b"curv" + bytes(4) + struct.pack(">IHxx", 1, round(1.8 * 256))
    parts = {b"rXYZ": xyz(matrix[:, 0]), b"gXYZ": xyz(matrix[:, 1]), b"bXYZ": xyz(matrix[:, 2])}
    parts |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    levels = np.stack(np.meshgrid(*[np.linspace(60, 200, 16)] * 2), axis=-1)
    values = np.concatenate([levels, levels.mean(axis=-1, keepdims=True)], axis=-1).round().astype(np.uint8)
    profile = icc_profile(b"mntr", b"RGB ", b"XYZ ", parts)
    Image.fromarray(values).save(tmp_path / "a.png", icc_profile=profile)
    found = np.asarray(read_image(tmp_path / "a.png"), float)
    expected = srgb_of_xyz((values / 255) ** (461 / 256) @ matrix.T)
    assert np.abs(expected - values).max() > 30, "without its profile it shows something else"
    assert np.abs(found - expected).max() <= 2.5


def test_a_printers_cmyk_photo(tmp_path):
    """A profile by a table of the 16 overprints' colours in CIELAB; a picture of the eight without black, and black."""
    overprints = np.array(list(np.ndindex(2, 2, 2, 2)))  # of cyan, magenta, yellow and black
    cyan, magenta, yellow, black = overprints.T
    lightness = np.where(black, 0, 100 - 40 * cyan - 40 * magenta - 8 * yellow).clip(0)
    a, b = 30 * (magenta - cyan) * (1 - black), (45 * yellow - 20 * cyan - 5 * magenta) * (1 - black)
    a, b = a * (lightness > 0), b * (lightness > 0)
    table = np.stack([(lightness * 2.55).round(), a + 128, b + 128], axis=-1).astype(np.uint8)
    straight = bytes(range(256))
    identity = struct.pack(">9i", *(np.eye(3) * 65536).astype(int).ravel().tolist())
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + straight * 4 + table.tobytes() + straight * 3
    profile = icc_profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut, b"A2B1": lut, b"A2B2": lut})

    inks = (255 * overprints[[*range(0, 16, 2), 1]]).astype(np.uint8)
    picture = Image.fromarray(np.repeat(np.repeat(inks[None], 32, axis=0), 32, axis=1), "CMYK")
    picture.save(tmp_path / "a.jpg", quality=100, icc_profile=profile)
    found = np.asarray(read_image(tmp_path / "a.jpg"), float)[16, 16::32]

    lab = (table.astype(float) * [100 / 255, 1, 1] - [0, 128, 128])[[*range(0, 16, 2), 1]]
    y = (lab[:, 0] + 16) / 116
    roots = np.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], axis=-1)
    light = np.where(roots > 6 / 29, roots**3, (roots - 4 / 29) * 3 * (6 / 29) ** 2)  # CIE 15: 1976 L*a*b*
    assert np.abs(found - srgb_of_xyz(light * D50)).max() <= 3
    with Image.open(tmp_path / "a.jpg") as image:
        plain = np.asarray(image.convert("RGB"), float)[16, 16::32]
    assert np.abs(found - plain).max() > 30, "without its profile it shows something else"


@pytest.mark.parametrize(("mode", "options"), [("L", {}), ("L", {"transparency": 0}), ("LA", {})])
def test_grey_of_a_linear_profile_is_brightened_and_keeps_its_transparency(tmp_path, mode, options):
    light = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(light)
    if mode == "LA":
        image.putalpha(Image.fromarray(light))
    image.save(tmp_path / "a.png", icc_profile=linear_grey_profile(), **options)
    found = np.asarray(read_image(tmp_path / "a.png"), float)
    linear = light / 255
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    assert np.abs(found[..., :3] - 255 * srgb[..., None]).max() <= 2
    if mode == "LA":
        assert np.array_equal(found[..., 3], light)
    elif options:
        assert np.array_equal(found[..., 3], np.where(light == 0, 0, 255))
