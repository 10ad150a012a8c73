"""Reading the watermark back, from frames that may have been compressed since.

Each bit is a vote over all of its blocks in a frame, and then over the frames. Where the U of a whole frame is nearly
even, some votes are close and a bit may be lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from .embedding import MESSAGE_BITS, STEP, Frame, blocks_of, can_watermark, haar, marked_part, to_yuv

# Of 48 fair coins as many agree once in 20 million throws. Marked clips of this project keep 46 or more in its own
# files; no photograph without the mark has come near.
NEEDED_BITS = 42


@dataclass(frozen=True)
class Reading:
    """What was read from frames: how many of the message's bits agree, in how many frames large enough to carry it."""

    agreeing_bits: int
    num_frames: int

    @property
    def is_marked(self) -> bool:
        """Whether so many bits agree that chance does not explain it."""
        return self.agreeing_bits >= NEEDED_BITS


def read_watermark(frames: Iterable[Frame]) -> Reading:
    """What frames, uint8 (H, W, 3) in RGB, say by majority; they are taken one by one, too small ones left out."""
    votes, num_frames = np.zeros(len(MESSAGE_BITS)), 0
    for frame in frames:
        if can_watermark(*frame.shape[:2]):
            votes += read_bits(frame)
            num_frames += 1
    if num_frames == 0:
        return Reading(0, 0)
    return Reading(int(np.sum((votes > num_frames / 2) == MESSAGE_BITS)), num_frames)


def read_bits(frame: Frame) -> NDArray[np.bool_]:
    """The 48 bits that a frame, uint8 (H, W, 3) in RGB and large enough, seems to carry, marked or not."""
    low, _ = haar(marked_part(to_yuv(frame)), axis=0)
    low_low, _ = haar(low, axis=1)
    blocks = rearrange(blocks_of(low_low), "rows columns h w -> (rows columns) (h w)")
    votes = blocks[:, 1:].max(axis=1) % STEP > STEP / 2
    bit_of_block = np.arange(len(votes)) % len(MESSAGE_BITS)
    return np.bincount(bit_of_block, votes) / np.bincount(bit_of_block) >= 0.5
