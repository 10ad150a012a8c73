"""Deep features of the UNet kept from one noise level to the next ones, where they change little.

DeepCache (arXiv:2312.00858): on most steps only the outermost layers are computed, around the features that an earlier
step left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass
class FeatureCache:
    """The deep features of one clip's calls of the UNet: computed at the first of every `interval` calls, then kept."""

    interval: int
    calls: int = 0
    features: Tensor | None = None

    def __call__(self, compute: Callable[[], Tensor]) -> Tensor:
        """The features for this call."""
        if self.features is None or self.calls % self.interval == 0:
            self.features = None  # freed before new ones are made
            self.features = compute()
        self.calls += 1
        return self.features
