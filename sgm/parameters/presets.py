"""Named trade-offs between fidelity and speed: how each samples a clip (losses: docs/speed_and_memory.md)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Sampling parameters by name; `share_of_steps` is of the version's own number of steps."""

    share_of_steps: float
    schedule: str
    sampler: str
    cache_interval: int

    def num_steps(self, prescribed: int) -> int:
        """How many steps the preset takes of the prescribed number, at least one."""
        return max(1, round(prescribed * self.share_of_steps))


PRESETS = {
    "exact": Preset(1, "karras", "euler", cache_interval=1),
    "balanced": Preset(1 / 2, "ays", "dpmpp_2m", cache_interval=1),
    "fast": Preset(1 / 3, "ays", "dpmpp_2m", cache_interval=2),
}
