"""The frames between two frames, by the network EMA-VFI (see `sgm.models.ema_vfi`), on a device and in what fits there.

Frames of any size are padded to what the network divides. Cuts are found as `sgm.enhance.flow` finds them, and there,
as between frames that are the same, nothing is left to the network.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import is_out_of_memory
from ..models.ema_vfi import EMAVFI, Pair
from ..runtime.devices import give_back_memory
from .flow import Frame, Motion
from .interpolation import InBetween
from .tiles import in_tiles

PADDED_TO = 32  # pixels, as in the released demonstration
MIN_TILE = 256  # pixels
MOST_HALVINGS = 5  # of the time between two frames: what is shown is at most 1/64 of it early or late
NEAR = 1e-3  # of that time: as near as that to a frame is the frame


@dataclass(frozen=True)
class NetworkInterpolator:
    """Makes frames between others.

    network: with its weights on `device` within `at_work`. knows_any_time: whether it was trained for every time,
    rather than for the middle alone, with which other times are found by halving again and again. warn: called with a
    line when memory runs out.
    """

    network: EMAVFI
    knows_any_time: bool
    device: torch.device
    at_work: Callable[[], AbstractContextManager[object]]
    warn: Callable[[str], object]
    tiles: dict[tuple[int, ...], int] = field(default_factory=dict)  # by the frames' size, once that ran out of memory

    def between(self, first: Frame, second: Frame) -> InBetween:
        """What is between two frames of one size, uint8 (H, W, 3) RGB."""
        motion = Motion.between(first, second)
        if motion.is_cut or np.array_equal(first, second):
            return motion
        return AnyTime(self, first, second) if self.knows_any_time else Halves(self, first, second)

    def lower(self, size: tuple[int, int]) -> bool:
        """Take smaller tiles for frames of this size, (height, width); returns False where they are the smallest."""
        side = self.tiles.get(size, max(size))
        if side <= MIN_TILE:
            return False
        self.tiles[size] = max(MIN_TILE, -(-side // (2 * PADDED_TO)) * PADDED_TO)
        self.warn(
            f"warning: out of memory interpolating frames of {size[1]}x{size[0]}; now in tiles of {self.tiles[size]}"
            " pixels, which know less of fast motion"
        )
        return True


class AnyTime:
    """What is between two frames, by a network that knows every time; what it found out of them serves them all."""

    def __init__(self, by: NetworkInterpolator, first: Frame, second: Frame):
        self._by, self._first, self._second = by, _padded(first), _padded(second)
        self._size = first.shape[:2]
        self._known: Pair | None = None

    def frame_at(self, time: float) -> Frame:
        """The frame at a time in (0, 1); in tiles where memory runs out."""
        height, width = self._size
        while True:
            try:
                return _cropped(self._make(time), height, width)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self._by.lower((height, width)):
                    raise
            # Outside the handler the error is gone, and with it the failed attempt's hold on its memory.
            self._known = None
            give_back_memory(self._by.device)

    def _make(self, time: float) -> Tensor:
        network, device, side = self._by.network, self._by.device, self._by.tiles.get(self._size)
        with torch.inference_mode(), self._by.at_work():
            if side is None:
                if self._known is None:
                    self._known = network.encode(self._first.to(device), self._second.to(device))
                return network.between(self._known, time).cpu()

            def make(rows: slice, columns: slice) -> Tensor:
                tiles = (frame[..., rows, columns].to(device) for frame in (self._first, self._second))
                return network(*tiles, time)

            _, _, height, width = self._first.shape
            return in_tiles(make, height, width, side)


class Halves:
    """What is between two frames, by a network that knows only the middle of two."""

    def __init__(self, by: NetworkInterpolator, first: Frame, second: Frame):
        self._by = by
        self._frames = {0.0: first, 1.0: second}

    def frame_at(self, time: float) -> Frame:
        """The frame at a time in (0, 1), or the nearest that `MOST_HALVINGS` lead to."""
        before, after = 0.0, 1.0
        for _ in range(MOST_HALVINGS):
            middle = (before + after) / 2
            if middle not in self._frames:
                self._frames[middle] = AnyTime(self._by, self._frames[before], self._frames[after]).frame_at(0.5)
            if abs(time - middle) <= NEAR:
                return self._frames[middle]
            before, after = (before, middle) if time < middle else (middle, after)
        return self._frames[before if time - before <= after - time else after]


def _padded(frame: Frame) -> Tensor:
    """A frame as the network takes it, (1 3 H W) BGR in [0, 1], its edges repeated around it."""
    pixels = torch.from_numpy(np.ascontiguousarray(frame[..., ::-1])).permute(2, 0, 1)[None].float() / 255
    padding = []
    for side in frame.shape[1::-1]:
        more = -side % PADDED_TO
        padding += [more // 2, more - more // 2]
    return F.pad(pixels, padding, mode="replicate")


def _cropped(made: Tensor, height: int, width: int) -> Frame:
    """The inverse, to the nearest of 256 levels."""
    top, left = ((padded - side) // 2 for padded, side in zip(made.shape[2:], (height, width), strict=True))
    pixels = made[0, :, top : top + height, left : left + width].permute(1, 2, 0) * 255 + 0.5
    return np.ascontiguousarray(pixels.to(torch.uint8).numpy()[..., ::-1])
