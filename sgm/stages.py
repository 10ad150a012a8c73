"""Seconds and peak memory of each stage of a run."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

T = TypeVar("T")
_END: Any = object()


class Stages:
    """Seconds and peak memory of the named stages of one run.

        stages = Stages(device="cuda")
        with stages.measure("sampling"):
            ...
        stages.measured == {"sampling": {"seconds": 12.3, "peak_memory_bytes": 8_000_000_000, "memory": "cuda"}}

    "memory" says what was counted: "cuda", the most that torch held on the device during the stage; "resident", the
    most main memory that the process held during the stage; "resident_since_start", the same since the process started,
    on systems that can't reset the peak; null if the system reports nothing. Measuring a stage again adds its seconds
    and keeps the higher peak. A stage inside another one pauses it: what it takes counts once. `earlier` holds earlier
    measurements of the same run.
    """

    def __init__(self, device: str = "cpu", earlier: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> None:
        self.measured: dict[str, dict[str, Any]] = {name: dict(stage) for name, stage in earlier.items()}
        self._device = device
        self._running: list[str] = []  # the outermost first
        self._reset, self._start = False, 0.0

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measure what runs inside as a stage of this name; what fails isn't recorded."""
        if self._running:
            self._record(self._running[-1])
        self._running.append(name)
        self._begin()
        try:
            yield
            self._record(name)
        finally:
            self._running.pop()
            if self._running:
                self._begin()

    def measure_each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The items as they come, what making each takes measured as a stage of this name."""
        iterator = iter(items)
        while True:
            with self.measure(name):
                item = next(iterator, _END)
            if item is _END:
                return
            yield item

    def _begin(self) -> None:
        self._reset = _reset_peak_memory(self._device)
        self._start = time.perf_counter()

    def _record(self, name: str) -> None:
        """Add what was taken since the last beginning."""
        memory, peak_bytes = _peak_memory(self._device, self._reset)  # waits for the device: read the time after it
        seconds = time.perf_counter() - self._start
        earlier = self.measured.get(name, {"seconds": 0.0, "peak_memory_bytes": peak_bytes})
        if peak_bytes is not None:
            peak_bytes = max(peak_bytes, earlier["peak_memory_bytes"])
        seconds = round(earlier["seconds"] + seconds, 3)
        self.measured[name] = {"seconds": seconds, "peak_memory_bytes": peak_bytes, "memory": memory}


def _reset_peak_memory(device: str) -> bool:
    """Reset the peak; returns False if that can't be done."""
    if device.startswith("cuda"):
        torch = sys.modules["torch"]
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return True
    if device == "mps":
        sys.modules["torch"].mps.synchronize()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: 5 resets the peak resident size, see proc(5)
    except OSError:
        return False
    return True


def _peak_memory(device: str, reset: bool) -> tuple[str | None, int | None]:
    """What was counted, as the docstring of `Stages` names it, and the peak in bytes."""
    if device.startswith("cuda"):
        torch = sys.modules["torch"]
        torch.cuda.synchronize(device)
        return "cuda", torch.cuda.max_memory_allocated(device)
    if device == "mps":
        sys.modules["torch"].mps.synchronize()
    if reset:
        status = Path("/proc/self/status").read_text()
        high_water = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), None)
        if high_water is not None:
            return "resident", int(high_water) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None, None
    unit = 1 if sys.platform == "darwin" else 1024
    return "resident_since_start", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
