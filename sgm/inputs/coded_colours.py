"""Colours that a file names without an ICC profile: by ITU-T H.273's numbers, or by a PNG's gAMA and cHRM.

They become an ICC profile, so that they go the same way as all others. Light brighter than an SDR screen's white, in PQ
and HLG, is toned down by the profile's curve.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]

HEAD_BYTES = 1 << 20  # of a file, within which colours are named
# The numbers of primaries and transfer in a PNG's chunk cICP (PNG, third edition) and AVIF's box (ISO/IEC 14496-12).
CODES = {"PNG": re.compile(rb"\0\0\0\x04cICP(.)(.)", re.DOTALL), "AVIF": re.compile(rb"colrnclx\0(.)\0(.)", re.DOTALL)}
D65, D50 = (0.3127, 0.3290), np.array([0.9642, 1, 0.8249])  # x and y; X, Y and Z of ICC's connection space
BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))  # x and y of red, green and blue: sRGB's too
BT2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
PRIMARIES = {1: BT709, 9: BT2020, 12: DISPLAY_P3}  # H.273, table 2
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])  # ICC.1, annex E
CURVE_POINTS = 4096

WHITE_NITS, PEAK_NITS = 203, 1000  # SDR's white within HDR (ITU-R BT.2408); the brightest of screens HDR is graded for
KNEE = 0.3  # light below this share of SDR's white keeps its brightness


def coded_profile(image: Image.Image, head: bytes) -> bytes | None:
    """An ICC profile of the colours that the file names; None where it names none, or unknown ones.

    head: the file's first `HEAD_BYTES`. H.273's numbers count more than a profile in a PNG, and less in HEIC and AVIF.
    """
    is_png, info = image.format == "PNG", image.info
    if "icc_profile" in info and not is_png:
        return None
    if (pattern := CODES.get(image.format or "")) and (found := pattern.search(head)):
        return _profile_of_codes(found[1][0], found[2][0])
    if nclx := info.get("nclx_profile"):  # pillow-heif's name for HEIC's
        return _profile_of_codes(nclx["color_primaries"], nclx["transfer_characteristics"])
    if not is_png or {"icc_profile", "srgb"} & info.keys() or not 0.1 <= info.get("gamma", 0) <= 10:
        return None
    gamma = 1 / info["gamma"]
    white, *primaries = np.reshape(info.get("chromaticity", (*D65, *np.ravel(BT709))), (4, 2)).tolist()
    return _profile(primaries, white, srgb_light if abs(gamma - 2.2) < 0.02 else lambda values: values**gamma)


def srgb_light(values: Array) -> Array:
    """IEC 61966-2-1: sRGB's values in [0, 1] -> light in [0, 1]."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def pq_light(values: Array) -> Array:
    """ITU-R BT.2100: PQ's values in [0, 1] -> light in [0, 1] on an SDR screen."""
    root = values ** (4096 / (2523 * 128))
    light = np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)
    return _toned_down(10_000 * light ** (16384 / 2610))


def hlg_light(values: Array) -> Array:
    """ITU-R BT.2100: HLG's values in [0, 1] -> light in [0, 1] on an SDR screen.

    Its system gamma of 1.2, which is meant for luminance, applies to each colour.
    """
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    return _toned_down(PEAK_NITS * scene**1.2)


CURVES: dict[int, Callable[[Array], Array]] = {  # H.273, table 3; the curves of SDR video are shown as sRGB's
    **dict.fromkeys((1, 6, 13, 14, 15), srgb_light), 8: lambda values: values, 16: pq_light, 18: hlg_light,
}  # fmt: skip


def _toned_down(nits: Array) -> Array:
    """Light as a share of SDR's white: as it is below the knee, above it Reinhard's curve (2002, eq. 4) to the peak."""
    light = nits / WHITE_NITS
    above, peak = (light - KNEE) / (1 - KNEE), (PEAK_NITS / WHITE_NITS - KNEE) / (1 - KNEE)
    above = above.clip(0, peak)
    return np.where(light <= KNEE, light, KNEE + (1 - KNEE) * above * (1 + above / peak**2) / (1 + above))


def _profile_of_codes(primaries: int, transfer: int) -> bytes | None:
    if primaries not in PRIMARIES or transfer not in CURVES:
        return None
    return _profile(PRIMARIES[primaries], D65, CURVES[transfer])


def _profile(
    primaries: Sequence[Sequence[float]], white: Sequence[float], curve: Callable[[Array], Array]
) -> bytes | None:
    """An RGB profile of version 2 (ICC.1:2001-04) of a matrix and a curve; None for what are no primaries."""
    try:
        rgb = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
        xyz_white = np.array([white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])
        rgb = rgb * np.linalg.solve(rgb, xyz_white)
    except (ZeroDivisionError, np.linalg.LinAlgError):
        return None
    to_d50 = np.linalg.inv(BRADFORD) @ np.diag(BRADFORD @ D50 / (BRADFORD @ xyz_white)) @ BRADFORD
    points = (curve(np.linspace(0, 1, CURVE_POINTS)) * 65535).round().astype(">u2").tobytes()
    curve_tag = b"curv" + bytes(4) + struct.pack(">I", CURVE_POINTS) + points
    parts = {b"wtpt": _xyz(D50), b"rXYZ": _xyz(to_d50 @ rgb[:, 0]), b"gXYZ": _xyz(to_d50 @ rgb[:, 1])}
    parts |= {b"bXYZ": _xyz(to_d50 @ rgb[:, 2]), b"rTRC": curve_tag, b"gTRC": curve_tag, b"bTRC": curve_tag}
    table, data, start = struct.pack(">I", len(parts)), b"", 128 + 4 + 12 * len(parts)
    for name, part in parts.items():
        table += name + struct.pack(">II", start + len(data), len(part))
        data += part
    header = struct.pack(">I4xI4s4s4s12x4s", start + len(data), 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return (header + bytes(28) + _xyz(D50)[8:]).ljust(128, b"\0") + table + data


def _xyz(values: Array) -> bytes:
    """An XYZ tag: numbers with 16 bits after the point."""
    return b"XYZ " + bytes(4) + (values * 65536).round().astype(">i4").tobytes()
