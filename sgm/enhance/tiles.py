"""A picture computed in overlapping tiles, for what doesn't fit into memory whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

OVERLAP = 64  # pixels over which one tile passes into the next


def in_tiles(make: Callable[[slice, slice], Tensor], height: int, width: int, side: int) -> Tensor:
    """A picture (b c height width) of what `make` returns for the rows and columns of each tile; on the CPU.

    side: of a tile, more than `OVERLAP`; one that reaches beyond the picture is as large as that. Where tiles overlap,
    each counts the more, the further a pixel is from its edge.
    """
    rows, columns = list(_spans(height, side)), list(_spans(width, side))
    made, total = None, torch.zeros(height, width)
    for of_rows in rows:
        for of_columns in columns:
            tile = make(of_rows, of_columns).cpu()
            share = _share(of_rows)[:, None] * _share(of_columns)
            if made is None:
                made = tile.new_zeros(*tile.shape[:2], height, width)
            made[..., of_rows, of_columns] += tile * share
            total[of_rows, of_columns] += share
    assert made is not None
    return made / total


def _spans(length: int, side: int) -> Iterator[slice]:
    """Pieces of a length, evenly spread, that overlap by `OVERLAP` or more."""
    if length <= side:
        yield slice(0, length)
        return
    count = -(-(length - OVERLAP) // (side - OVERLAP))
    for number in range(count):
        start = round(number * (length - side) / (count - 1))
        yield slice(start, start + side)


def _share(span: slice) -> Tensor:
    from_start = torch.arange(1.0, span.stop - span.start + 1)
    return torch.minimum(from_start, from_start.flip(0)).clamp(max=OVERLAP) / OVERLAP
