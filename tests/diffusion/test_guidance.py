import pytest
import torch

from sgm.config import GuidanceConfig
from sgm.diffusion.edm import guidance_scales, guide

TRIANGLE = GuidanceConfig("triangle", min_scale=1.0, max_scale=2.5)
LINEAR = GuidanceConfig("linear", min_scale=1.5, max_scale=3.0)


def test_linear_goes_from_least_to_most() -> None:
    torch.testing.assert_close(guidance_scales(LINEAR, 4), torch.tensor([1.5, 2.0, 2.5, 3.0]))


def test_triangle_peaks_at_the_middle_view() -> None:
    scales = guidance_scales(TRIANGLE, 21)
    rising = torch.arange(11) * 0.15 + 1
    torch.testing.assert_close(scales[:11], rising)
    torch.testing.assert_close(scales[10:], rising.flip(0))
    assert scales.argmax() == 10
    assert scales[10] == 2.5


def test_triangle_of_an_even_count_stays_below_its_peak() -> None:
    scales = guidance_scales(TRIANGLE, 4)
    torch.testing.assert_close(scales, torch.tensor([1.0, 2.0, 2.0, 1.0]))


@pytest.mark.parametrize("config", [TRIANGLE, LINEAR], ids=lambda config: config.shape)
def test_a_single_frame_has_the_least_scale(config: GuidanceConfig) -> None:
    assert guidance_scales(config, 1).tolist() == [config.min_scale]


def test_guide_moves_each_frame_by_its_own_scale() -> None:
    unconditional, conditional = torch.full((3, 2, 2, 2), 10.0), torch.full((3, 2, 2, 2), 11.0)
    guided = guide(unconditional, conditional, torch.tensor([0.0, 1.0, 2.5]))
    assert guided[:, 0, 0, 0].tolist() == [10.0, 11.0, 12.5]
    assert (guided == guided[:, :1, :1, :1]).all()
