"""The camera's orbit around an object: an elevation and an azimuth for each view, the last view being the input's own.

Frame i of T (counted from 0) stands at (i + 1) / T of the way round, so that the last one closes the orbit. Fewer
angles than frames are key angles: key j of K stands at (j + 1) / K of the way, the last key on the last frame. Between
two keys the angle changes evenly, and before the first key it comes from the last one, for the orbit is closed. Seven
keys for 21 frames thus fall on every third frame: the 3rd, 6th, ... and 21st.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sgm.errors import UserError

DEFAULT_ELEVATION_DEG = 10.0


@dataclass(frozen=True)
class Orbit:
    """The camera of every view, in degrees: one elevation (0 level, 90 from above) and one azimuth for each frame."""

    elevations_deg: tuple[float, ...]
    azimuths_deg: tuple[float, ...]

    def __post_init__(self) -> None:
        assert len(self.elevations_deg) == len(self.azimuths_deg) >= 1

    @property
    def polars_rad(self) -> list[float]:
        """Angles from the upward axis, in radians: SV3D's condition for the elevations."""
        return [math.radians(90 - elevation) for elevation in self.elevations_deg]

    @property
    def azimuths_rad(self) -> list[float]:
        """Azimuths relative to the last view's, in [0, 2 pi) radians: SV3D's condition for the azimuths."""
        last = self.azimuths_deg[-1]
        return [math.radians((azimuth - last) % 360) for azimuth in self.azimuths_deg]


def make_orbit(
    num_frames: int,
    elevations_deg: float | Sequence[float] = DEFAULT_ELEVATION_DEG,
    azimuths_deg: Sequence[float] | None = None,
) -> Orbit:
    """Lay out the orbit of `num_frames` views.

    Args:
        num_frames: how many views, at least 1.
        elevations_deg: one for all views, one for each, or fewer key elevations (see the module); each in [-90, 90].
        azimuths_deg: one for each view, in any order and kept as given; or fewer key azimuths, between which the camera
            goes the shorter way round (forwards where both are a half turn). None: even steps once round, ending at 0.

    Raises:
        UserError: no angles, more angles than frames, or an angle that is no finite number in its range.
    """
    assert num_frames >= 1, num_frames
    elevations = _checked("elevations_deg", elevations_deg, num_frames)
    for elevation in elevations:
        if not -90 <= elevation <= 90:
            raise UserError(f"elevations_deg has {elevation:g}: from -90 (below) to 90 (above) is allowed")
    if azimuths_deg is None:
        azimuths = [360 * (i + 1) / num_frames % 360 for i in range(num_frames)]
    else:
        azimuths = _checked("azimuths_deg", azimuths_deg, num_frames)
    return Orbit(
        elevations_deg=tuple(_around(elevations, num_frames, lambda start, end: end - start)),
        azimuths_deg=tuple(_around(azimuths, num_frames, _shorter_turn)),
    )


def _checked(name: str, angles: float | Sequence[float], num_frames: int) -> list[float]:
    if isinstance(angles, str):
        raise UserError(f"{name} is the text {angles!r}: give a number or a list of numbers, in degrees")
    try:
        values = [float(angle) for angle in angles] if isinstance(angles, Iterable) else [float(angles)]
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} is {angles!r}: give a number or a list of numbers, in degrees") from error
    if not 1 <= len(values) <= num_frames:
        raise UserError(f"{name} has {len(values)} angles for {num_frames} frames: give from 1 to {num_frames} angles")
    for value in values:
        if not math.isfinite(value):
            raise UserError(f"{name} has {value}: every angle must be a finite number of degrees")
    return values


def _around(keys: list[float], num_frames: int, turn: Callable[[float, float], float]) -> list[float]:
    """The angle at each frame, between its two neighbouring keys; `turn(start, end)` is the way between them."""
    angles = []
    for frame in range(num_frames):
        passed, rest = divmod((frame + 1) * len(keys), num_frames)  # integers, so that a key's own frame has it exactly
        last_key = keys[passed - 1]  # before the first key: index -1, the closed orbit's last
        angles.append(last_key + turn(last_key, keys[passed]) * rest / num_frames if rest else last_key)
    return angles


def _shorter_turn(start_deg: float, end_deg: float) -> float:
    """Degrees in (-180, 180] from one azimuth to another."""
    return 180 - (180 - (end_deg - start_deg)) % 360
