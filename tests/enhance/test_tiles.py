import pytest
import torch

from sgm.enhance.tiles import OVERLAP, in_tiles


@pytest.mark.parametrize(
    ("height", "width", "side"), [(300, 500, 128), (128, 128, 128), (64, 700, 256), (129, 257, 128), (32, 32, 512)]
)
def test_what_looks_at_pixels_alone_is_the_same_in_tiles(height, width, side):
    picture = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    shapes = set()

    def make(rows, columns):
        tile = picture[..., rows, columns]
        shapes.add(tile.shape[2:])
        return 1 - tile

    assert torch.allclose(in_tiles(make, height, width, side), 1 - picture, atol=1e-6)
    assert shapes == {(min(height, side), min(width, side))}


def test_one_tile_passes_into_the_next_without_a_seam():
    """Two tiles, one of zeros and one of ones: from pixel to pixel it rises by a step of the overlap at most."""
    values = iter([0.0, 1.0])
    made = in_tiles(lambda rows, columns: torch.full((1, 1, 40, 200), next(values)), 40, 400 - OVERLAP, 200)[0, 0]
    rise = made.diff(dim=1)
    assert (made[:, 0] == 0).all()
    assert (made[:, -1] == 1).all()
    assert rise.min() >= 0
    assert rise.max() <= 1.01 / OVERLAP
