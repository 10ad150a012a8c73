"""The table of losses, on clips that are lost to a known degree, and on the command line."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgm.config import load_config
from sgm.evaluation.__main__ import main
from sgm.evaluation.tradeoffs import EXACT, GUIDED, WAYS, Way, measure_losses
from sgm.metrics.likeness import PSNR_OF_EQUAL_DB, Pictures
from sgm.progress import Progress
from tests.evaluation.test_main import random_checkpoint


def brightened(way: Way) -> float:
    """An error that a way shall make: the exact ways none, each other one its own."""
    own = next(name for name, of_name in WAYS.items() if of_name == way)
    return 0.0 if own in (EXACT, GUIDED) else 0.01 * (1 + list(WAYS).index(own))


def test_each_way_is_compared_with_the_exact_one_of_its_kind() -> None:
    asked: list[Way] = []

    def generate(way: Way) -> Any:
        asked.append(way)

        def make(picture: Pictures, **sampling: Any) -> Pictures:
            clip = np.full((21, *picture.shape), 0.3 if way.guided else 0.6, np.float32)
            return clip + np.float32(brightened(way))

        return make

    losses = measure_losses(generate, load_config("sv3d_tiny"), 2)
    assert asked == list(WAYS.values())
    for name, scores in losses.scores.items():
        error = brightened(WAYS[name])
        expected = -20 * math.log10(error) if error else PSNR_OF_EQUAL_DB
        assert scores["psnr_to_exact_db"] == pytest.approx(expected, abs=0.01), name
        assert (scores["ssim_to_exact"] == pytest.approx(1)) == (error == 0)
    assert losses.scores[EXACT]["psnr_db"] != losses.scores[GUIDED]["psnr_db"]
    rows = losses.table().splitlines()
    assert len(rows) == 2 + len(WAYS)
    assert all(name in row for name, row in zip(WAYS, rows[2:], strict=True))


def test_without_a_terminal_each_way_says_once_a_minute_how_far_it_is() -> None:
    now, stream = 0.0, io.StringIO()

    def take_40_seconds(picture: Pictures, **sampling: Any) -> Pictures:
        nonlocal now
        now += 40
        return np.zeros((21, *picture.shape), np.float32)

    progress = Progress(stream, clock=lambda: now)
    measure_losses(lambda way: take_40_seconds, load_config("sv3d_tiny"), 3, progress.track)
    ways = enumerate(WAYS, 1)
    assert stream.getvalue().splitlines() == [f"{name} ({n} of {len(WAYS)}): 2 of 3, 00:40 left" for n, name in ways]


def test_the_command_measures_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, output = random_checkpoint("sv3d_tiny", tmp_path), tmp_path / "losses.json"
    words = ["sv3d_tiny", "--losses", "true", "--num_objects", "1", "--device=cpu"]
    assert main([*words, f"--checkpoint={checkpoint}", f"--output={output}"]) == 0
    assert "| guidance_interval [0.1,100] |" in capsys.readouterr().out
    scores = json.loads(output.read_text())["scores"]
    likeness = {name: of_way["psnr_to_exact_db"] for name, of_way in scores.items()}
    assert {name for name, value in likeness.items() if value == PSNR_OF_EQUAL_DB} == {EXACT, GUIDED}
    assert likeness["fp8 linears"] < likeness["fp8 weights"]
    assert scores[EXACT] != {**scores[GUIDED]}, "guidance has an effect"


@pytest.mark.parametrize("words", [["--preset", "fast"], ["--num_steps", "3"], ["--fp8", "weights"]])
def test_settings_that_the_ways_have_of_their_own_are_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sv3d_tiny", "--losses", "true", *words]) == 2
    assert "losses sets these itself" in capsys.readouterr().err
