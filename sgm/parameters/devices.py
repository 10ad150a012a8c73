"""Several devices for one clip: their names, and which of them can share the work."""

from __future__ import annotations

from ..config import ModelConfig
from ..errors import UserError
from .parameter import CARDS, kind_of_device

MAX_DEVICES = 8


def device_names(devices: str) -> list[str]:
    """The device, or each of several that make a clip together. Raises UserError for several that can't."""
    names = devices.split(",")
    if len(names) > MAX_DEVICES:
        raise UserError(f"device names {len(names)} devices: give at most {MAX_DEVICES}")
    if len(names) > 1:
        if len(set(map(kind_of_device, names))) > 1:
            raise UserError(f"device {devices} mixes kinds of devices: give several of one kind, as in {CARDS}")
        if "mps" in names or "cuda" in names:
            raise UserError(f"device {devices} doesn't say which cards: give their numbers, as in {CARDS}")
        if repeated := next((name for name in names if names.count(name) > 1 and name != "cpu"), None):
            raise UserError(f"device {devices} names {repeated} twice: give each card once, as in {CARDS}")
    return names


def check_shares(devices: str, model: ModelConfig, num_frames: int, *, compile: bool) -> None:  # noqa: A002
    """Raise UserError where the devices can't share a clip of so many frames, compiled or not.

    Guidance's halves go to one half of the devices each, which share its frames.
    """
    count, halves = len(device_names(devices)), 2 if model.guidance.has_effect else 1
    if count == 1:
        return
    if count % halves:
        raise UserError(f"{count} devices can't share guidance's two halves: give 2, 4, 6 or 8")
    if compile and count > halves:
        raise UserError("blocks that share frames between devices can't be compiled: omit compile, or give fewer")
    if num_frames < count // halves:
        raise UserError(f"{count} devices can't share so few frames ({num_frames}): give {num_frames * halves} devices")
