"""Times to be compared: measured in turn, so that whatever else the machine does affects all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one thing: its first run, which may compile, and the runs after the warm-up."""

    first: float
    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of the runs after the warm-up."""
        return statistics.median(self.runs)

    @property
    def spread(self) -> float:
        """How far the slowest of those runs is above the quickest, as a share of the median."""
        return (max(self.runs) - min(self.runs)) / self.median

    def as_json(self) -> dict[str, Any]:
        """The seconds, with median and spread."""
        return asdict(self) | {"median": self.median, "spread": self.spread}


def measure_in_turn(
    works: Mapping[str, Callable[[], object]], device: torch.device, warmups: int, repeats: int
) -> dict[str, Timing]:
    """Runs all works in turn, `warmups` times and then `repeats` times, and times each run until the device is done."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(warmups + repeats):
        for name, work in works.items():
            synchronize(device)
            start = time.perf_counter()
            work()
            synchronize(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(runs[0], tuple(runs[warmups:])) for name, runs in seconds.items()}


def ratio(slower: Timing, quicker: Timing) -> float:
    """How many times as long one takes as the other: the median over their turns side by side."""
    return statistics.median(a / b for a, b in zip(slower.runs, quicker.runs, strict=True))


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
