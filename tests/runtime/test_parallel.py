"""Ranks that are really processes: what they share, and that they agree on what fails, whatever fails and where."""

import os
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist

from sgm.errors import UserError, is_out_of_memory
from sgm.runtime.parallel import LostRankError, Ranks, SharedError, start_ranks
from tests.runtime.helping import ORDERS

HELPER = "tests.runtime.helping"


@pytest.fixture(scope="module")
def started() -> Iterator[Ranks]:
    ranks = start_ranks(HELPER, ["cpu"] * 3)
    yield ranks
    ranks.close()


@pytest.fixture
def ranks(started: Ranks) -> Iterator[Ranks]:
    """The same three for each test: after it, whatever failed in it, all of them do the next thing together."""
    yield started
    assert len(set(together(started, "processes"))) == 3


def helpers() -> list[psutil.Process]:
    """Those of this process that run; other tests may have left it other children."""
    return [child for child in psutil.Process().children() if child.is_running() and HELPER in child.cmdline()]


def together(ranks: Ranks, name: str, *given: Any) -> Any:
    ranks.order(name, *given)
    return ORDERS[name](ranks, *given)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_all_ranks_have_what_each_has_made(ranks: Ranks, count: int) -> None:
    for name in ("squares", "squares_on_rank_0"):
        made = together(ranks, name, count)
        assert [tuple(tensor.shape) for tensor in made] == [(index + 1, 2) for index in range(count)]
        assert [float(tensor[-1, -1]) for tensor in made] == [index**2 for index in range(count)]
        assert {tensor.dtype for tensor in made[:3]} <= {torch.float16, torch.float32, torch.uint8}


def test_they_are_processes_of_their_own(ranks: Ranks) -> None:
    pids = together(ranks, "processes")
    assert pids[0] == os.getpid()
    assert {psutil.Process(pid).ppid() for pid in pids[1:]} == {os.getpid()}


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_what_fails_on_one_is_raised_on_all(ranks: Ranks, rank: int) -> None:
    with pytest.raises(SharedError, match="out of memory") as raised:
        together(ranks, "fail_on", rank)
    assert is_out_of_memory(raised.value), "so that what is done about it is done on all"


def test_a_helper_that_fails_before_the_others_wait_for_it(ranks: Ranks) -> None:
    with pytest.raises(SharedError, match="AssertionError: a fault of the helper's"):
        together(ranks, "fail_before_the_work")


def test_helpers_leave_what_rank_0_has_left(ranks: Ranks) -> None:
    with pytest.raises(KeyError, match="by a test"):
        together(ranks, "many_steps", 1000, 2)
    ranks.order("many_steps", 1000, 5)  # which rank 0 doesn't begin at all


def test_there_is_one_group_in_a_process(ranks: Ranks) -> None:
    with pytest.raises(UserError, match=r"already has a .* process group"):
        start_ranks(HELPER, ["cpu"] * 2)


def test_a_killed_helper_ends_all(started: Ranks) -> None:
    """The last test of the three; what it leaves is no hindrance to new ones."""
    children = helpers()
    assert len(children) == 2
    start = time.monotonic()
    with pytest.raises(LostRankError, match=r"the process on cpu \(rank 2\) was killed \(SIGKILL\)"):
        together(started, "die", 2)
    assert time.monotonic() - start < 30, "long before any time limit"
    assert started.are_lost
    assert not any(child.is_running() for child in children)
    with pytest.raises(LostRankError, match="load the model again"):
        together(started, "processes")
    with pytest.raises(LostRankError, match=r"the process on broken \(rank 1\) ended .* 1 \(there is no such device\)"):
        start_ranks(HELPER, ["cpu", "broken", "cpu"])
    assert helpers() == []
    assert not dist.is_initialized()
