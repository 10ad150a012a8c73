"""Seconds and peak memory of stages."""

import mmap
import sys
import time
from types import SimpleNamespace

import pytest

from sgm import stages as stages_module
from sgm.stages import Stages


def test_stages_measure_time_and_add_up():
    stages = Stages()
    for _ in range(2):
        with stages.measure("sampling"):
            time.sleep(0.05)
    with stages.measure("decoding"):
        pass
    assert list(stages.measured) == ["sampling", "decoding"]
    assert 0.1 <= stages.measured["sampling"]["seconds"] < 0.5
    assert stages.measured["decoding"]["seconds"] < 0.05


def test_stages_see_the_memory_of_the_stage():
    stages = Stages()
    with stages.measure("small"):
        pass
    with stages.measure("large"), mmap.mmap(-1, 200_000_000) as pages:  # malloc might reuse what it still holds
        pages.write(bytes(len(pages)))
    with stages.measure("small again"):
        pass
    peaks = {name: stage["peak_memory_bytes"] for name, stage in stages.measured.items()}
    if stages.measured["large"]["memory"] == "resident":
        assert peaks["large"] - peaks["small"] > 150_000_000
        assert peaks["large"] - peaks["small again"] > 150_000_000
    else:  # a mark that only rises
        assert stages.measured["large"]["memory"] == "resident_since_start"
        assert peaks["small"] <= peaks["large"] <= peaks["small again"]


def test_stages_fall_back_to_the_mark_of_the_whole_process(monkeypatch):
    monkeypatch.setattr(stages_module, "_reset_peak_memory", lambda device: False)
    stages = Stages()
    with stages.measure("sampling"):
        pass
    assert stages.measured["sampling"]["memory"] == "resident_since_start"
    assert stages.measured["sampling"]["peak_memory_bytes"] > 10_000_000


def test_stages_on_cuda_ask_torch_for_that_device(monkeypatch):
    calls = []

    class Cuda:
        def __getattr__(self, name):
            return lambda device: calls.append((name, device)) or 5

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=Cuda()))
    stages = Stages(device="cuda:1")
    with stages.measure("sampling"):
        calls.append("work")
    assert calls == [
        ("synchronize", "cuda:1"),
        ("reset_peak_memory_stats", "cuda:1"),
        "work",
        ("synchronize", "cuda:1"),
        ("max_memory_allocated", "cuda:1"),
    ]
    assert stages.measured["sampling"]["peak_memory_bytes"] == 5
    assert stages.measured["sampling"]["memory"] == "cuda"


def test_a_stage_that_fails_is_not_noted_and_the_next_one_is():
    stages = Stages()
    with pytest.raises(KeyError), stages.measure("sampling"):
        raise KeyError
    with stages.measure("decoding"):
        pass
    assert list(stages.measured) == ["decoding"]


def test_a_stage_inside_another_pauses_it():
    stages = Stages()

    def numbers():
        for number in range(3):
            with stages.measure("inner"):
                time.sleep(0.1)
            yield number

    def doubled():
        for number in numbers():
            time.sleep(0.02)
            yield 2 * number

    assert list(stages.measure_each("outer", doubled())) == [0, 2, 4]
    assert 0.3 <= stages.measured["inner"]["seconds"] < 0.4
    assert 0.06 <= stages.measured["outer"]["seconds"] < 0.2
