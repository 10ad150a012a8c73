import platform

import psutil
import pytest
import torch

from sgm.runtime.devices import give_back_memory

MEGABYTE = 2**20


def held_megabytes() -> int:
    return psutil.Process().memory_info().rss // MEGABYTE


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other habits")
def test_what_the_c_library_keeps_of_freed_memory_is_given_back():
    large = torch.ones(32 * MEGABYTE // 4 - 2**12)
    del large  # from now on glibc takes what is smaller from its heap, which has no gaps at first
    blocks = [torch.ones(MEGABYTE // 4) for _ in range(300)]
    del blocks[::2]
    before = held_megabytes()
    give_back_memory(torch.device("cpu"))
    assert before - held_megabytes() > 120
    assert all(bool((block == 1).all()) for block in blocks)
