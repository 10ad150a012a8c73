"""Times taken in turn."""

import time

import pytest
import torch

from sgm.benchmark.timing import Timing, measure_in_turn, ratio

CPU = torch.device("cpu")


def test_works_take_turns_and_only_runs_after_the_warm_up_count() -> None:
    order: list[str] = []
    works = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    timings = measure_in_turn(works, CPU, warmups=2, repeats=3)
    assert order == ["a", "b"] * 5
    assert [len(timing.runs) for timing in timings.values()] == [3, 3]


def test_seconds_are_those_of_the_work() -> None:
    naps = iter([0.2, 0.01, 0.03, 0.05, 0.04])
    timing = measure_in_turn({"nap": lambda: time.sleep(next(naps))}, CPU, warmups=2, repeats=3)["nap"]
    assert timing.first == pytest.approx(0.2, abs=0.05)
    assert timing.median == pytest.approx(0.04, abs=0.02)


def test_a_ratio_is_of_runs_side_by_side() -> None:
    """A machine that slows down threefold in between does not change it."""
    ours = Timing(first=9, runs=(1.0, 3.0, 3.0))
    theirs = Timing(first=9, runs=(2.0, 6.0, 6.3))
    assert ratio(theirs, ours) == pytest.approx(2)
    assert ours.median == 3
    assert ours.spread == pytest.approx(2 / 3)
