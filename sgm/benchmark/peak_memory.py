"""The most memory that tensors take, counted as they are made: on any device, including the meta device.

On the meta device nothing is computed, so that a model of any size is counted in seconds on any machine. The count is
of tensors alone: what a library needs to work in, and what an allocator loses to fragments, comes on top.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class PeakMemory(TorchDispatchMode):
    """Within it, `peak` is the largest number of bytes that tensors made within it have held at one time.

    Views of one storage count once. With a `device`, what lies elsewhere is not counted.
    """

    def __init__(self, device: str | None = None) -> None:
        super().__init__()
        self.device = device
        self.held = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(made):
            storage = tensor.untyped_storage()
            is_new = storage._cdata not in self._known | given  # a view of what was there before is not
            if is_new and self.device in (None, tensor.device.type):
                self._count(storage)
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        self._known.add(key)
        self.held += storage.nbytes()
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._release, key, storage.nbytes())

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, torch.Tensor))


class FusedAttention(TorchFunctionMode):
    """Within it, attention on the meta device makes its result and nothing else, as the fused kernels of devices do."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention and args[0].is_meta:
            query, _, value = args[:3]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))
