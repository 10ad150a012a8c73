"""The count of tensors' memory against what can be said of a few lines beforehand."""

import torch
import torch.nn.functional as F

from sgm.benchmark.peak_memory import FusedAttention, PeakMemory

KB = 1000


def test_counts_what_is_held_at_one_time() -> None:
    with PeakMemory() as counted:
        first = torch.zeros(250)  # 1 kB
        second = first + 1
        del first
        third = second.view(50, 5)[10:]
        assert counted.held == 1 * KB
        del second
        assert counted.held == 1 * KB  # a view holds all of its storage
        del third
        assert counted.held == 0
        torch.zeros(1000).add_(1)
    assert counted.peak == 4 * KB


def test_what_was_there_before_is_not_counted() -> None:
    weights = torch.zeros(1000)
    with PeakMemory() as counted:
        weights[10:].view(-1, 10)
    assert counted.peak == 0


def test_nothing_is_computed_on_the_meta_device() -> None:
    with PeakMemory() as counted:
        torch.empty(10**9, 25, device="meta") * 2
    assert counted.peak == 200 * 10**9


def test_attention_keeps_no_scores() -> None:
    query = torch.empty(1, 2, 5000, 8, device="meta")
    with FusedAttention(), PeakMemory() as counted:
        result = F.scaled_dot_product_attention(query, query, query)
    assert result.shape == query.shape
    assert counted.peak == query.nbytes


def test_the_processor_s_attention_is_left_as_it_is() -> None:
    query = torch.randn(1, 2, 5, 8)
    with FusedAttention():
        fused = F.scaled_dot_product_attention(query, query, query)
    torch.testing.assert_close(fused, F.scaled_dot_product_attention(query, query, query))
