"""A helper of `tests/runtime/test_parallel.py`: its orders are the functions that the tests call on rank 0."""

import os
import signal
import sys

import torch
from torch import Tensor

from sgm.runtime.parallel import Ranks, help_out


def squares(ranks: Ranks, count: int) -> list[Tensor]:
    """Each made by one rank, of shapes and types that differ; -1 in place of those that another rank makes."""
    return ranks.share(lambda index: square(ranks, index), count)


def squares_on_rank_0(ranks: Ranks, count: int) -> list[Tensor]:
    return ranks.collect(lambda index: square(ranks, index), count)


def square(ranks: Ranks, index: int) -> Tensor:
    assert index % ranks.size == ranks.rank, "another's"
    dtype = (torch.float16, torch.float32, torch.uint8)[index % 3]
    return torch.full((index + 1, 2), index**2, dtype=dtype)


def processes(ranks: Ranks) -> list[int]:
    return ranks.gather(os.getpid)


def fail_on(ranks: Ranks, rank: int) -> list[None]:
    def work() -> None:
        if ranks.rank == rank:
            raise MemoryError("by a test")

    return ranks.gather(work)


def fail_before_the_work(ranks: Ranks) -> list[int]:
    """A helper that fails where no other rank waits for it yet."""
    assert ranks.rank == 0, "a fault of the helper's"
    return processes(ranks)


def many_steps(ranks: Ranks, steps: int, leave_after: int) -> None:
    for step in range(steps):
        ranks.gather(lambda step=step: step)
        if ranks.rank == 0 and step == leave_after:
            raise KeyError("by a test")


def die(ranks: Ranks, rank: int) -> list[None]:
    return ranks.gather(lambda: os.kill(os.getpid(), signal.SIGKILL) if ranks.rank == rank else None)


ORDERS = {work.__name__: work for work in (squares, squares_on_rank_0, processes, fail_on, fail_before_the_work)}
ORDERS |= {"many_steps": many_steps, "die": die}

if __name__ == "__main__":
    if sys.argv[-1] == "broken":
        raise SystemExit("there is no such device")
    help_out(sys.argv[1:], ORDERS)
