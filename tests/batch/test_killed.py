"""A batch that is killed again and again ends as one that nobody disturbed."""

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

NUM_IMAGES, NUM_KILLS = 100, 20


def frames_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.glob("*/*.jpg"))}


def clips_in(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.json") if path.name != "report.json")


@pytest.mark.slow
def test_a_hundred_clips_killed_twenty_times_are_those_of_an_undisturbed_run(tmp_path, make_image, start, out):
    for seed in range(NUM_IMAGES):
        make_image(tmp_path / "in" / f"{seed:03d}.png", seed)
    undisturbed = start(tmp_path / "in")
    undisturbed.communicate()
    assert undisturbed.returncode == 0
    out.rename(tmp_path / "undisturbed")
    assert clips_in(tmp_path / "undisturbed") == [f"{seed:03d}" for seed in range(NUM_IMAGES)]

    moments, kills, finished = random.Random(0), 0, []
    while kills < NUM_KILLS:
        already = len(finished)
        process = start(tmp_path / "in")
        if moments.random() < 0.25:  # while it starts, looks for what is done and loads
            time.sleep(moments.uniform(0, 3))
        else:  # in the middle of a clip, a few clips on; never so many that all are made before the last kill
            goal = already + moments.randint(1, (NUM_IMAGES - already) // (NUM_KILLS - kills))
            while process.poll() is None and len(clips_in(out)) < goal:
                time.sleep(0.005)
            time.sleep(moments.uniform(0, 0.3))
        assert process.poll() is None, "it ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        finished = clips_in(out) if out.is_dir() else []
        assert len(finished) >= already, "what is done stays"
    assert 20 < len(finished) < NUM_IMAGES

    last = start(tmp_path / "in")
    said = last.communicate()
    assert last.returncode == 0, said
    assert frames_below(out) == frames_below(tmp_path / "undisturbed")
    assert clips_in(out) == clips_in(tmp_path / "undisturbed")
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []
    again = subprocess.run(last.args, capture_output=True, text=True, check=True)
    assert "   100  there already" in again.stderr
