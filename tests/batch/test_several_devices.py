"""Whole command lines on several devices: the clips of one, and what is said and left when a process is killed.

svd_tiny has no guidance, so its frames are shared: its clips are the same up to rounding.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from sgm.__main__ import sample
from sgm.parameters.sample_command import run
from tests.batch.conftest import PROJECT, SMALL

TWO = ["--device", "cpu,cpu", "--decoding_t", "1"]


def start(input_path: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, PROJECT / "sample.py", input_path, "--output_folder", out, *SMALL, *TWO, *words]
    return subprocess.Popen(
        [str(word) for word in command], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def frames_below(folder: Path) -> dict[str, np.ndarray]:
    return {
        path.relative_to(folder).as_posix(): np.asarray(Image.open(path)).astype(int)
        for path in sorted(folder.rglob("*.jpg"))
    }


def assert_equal_but_for_rounding(ours: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert ours.keys() == expected.keys()
    assert max(int(np.abs(ours[name] - expected[name]).max()) for name in expected) <= 2


def test_a_batch_is_that_of_one_device(images: Path, out: Path, tmp_path: Path, run_here) -> None:
    stdout, stderr = start(images, out, "--memory", "high").communicate()
    frames = frames_below(out)
    assert len(frames) == 6
    assert len(stdout.splitlines()) == 3, "rank 0 alone speaks"
    assert "Warning" not in stderr
    assert [json.loads((out / f"{name}.json").read_text())["ranks"] for name in "abc"] == [2, 2, 2]

    # On one device: all are there, each can be made again, and a folder of its own is the same.
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*.json") if path.name != "report.json"}
    assert run_here(images, "--decoding_t", "1") == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json") if path.name != "report.json"} == files
    words = ["--from_record", str(out / "a.json"), "--output_folder", str(tmp_path / "again"), "--device", "cpu"]
    assert run(sample, words) == 0
    again = {name: of for name, of in frames.items() if name.startswith("a/")}
    assert_equal_but_for_rounding(frames_below(tmp_path / "again"), again)
    out.rename(tmp_path / "of_two")
    assert run_here(images, "--decoding_t", "1") == 0
    assert_equal_but_for_rounding(frames_below(out), frames)


def test_a_helper_is_killed_in_the_middle_of_a_clip(images: Path, out: Path, tmp_path: Path) -> None:
    """Of the three clips the second takes long enough."""
    lines = [
        {"input_path": str(images / f"{name}.png"), "num_steps": steps}
        for name, steps in {"a": 1, "b": 500, "c": 1}.items()
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    process = start(tmp_path / "list.jsonl", out)
    try:
        while not (out / "in" / "a.json").exists():
            assert process.poll() is None
            time.sleep(0.01)
        (helper,) = psutil.Process(process.pid).children()
        assert helper.cmdline()[2] == "sgm.generation.helper"
        helper.send_signal(signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 1
    assert len(stdout.splitlines()) == 1, "of the clip that was done before"
    *_, last = stderr.splitlines()
    assert last.startswith("error: ended early, for the rest would fail too: the process on cpu (rank 1) was killed")
    assert "SIGKILL" in last
    assert "Traceback" not in stderr
    assert frames_below(out).keys() == {"in/a/0000.jpg", "in/a/0001.jpg"}
    assert {path.name for path in (out / "in").iterdir()} == {"a", "a.json", "a.mp4"}


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_helpers_end_with_the_command(
    number: signal.Signals, exit_code: int, images: Path, out: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.jsonl").write_text(json.dumps({"input_path": str(images / "a.png"), "num_steps": 500}))
    process = start(tmp_path / "list.jsonl", out)
    try:
        while not (helpers := psutil.Process(process.pid).children()):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate(timeout=300)
        helpers[0].wait(timeout=300)  # it may still be importing torch
    finally:
        process.kill()
    assert process.returncode == exit_code


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--device", "cuda:0,cuda:0"], "names cuda:0 twice"),
        (["--device", "cuda:0,cpu"], "mixes kinds"),
        (["--device", "cuda,cuda:1"], "which cards"),
        (["--device", "mps,mps"], "which cards"),
        (["--device", "cpu," * 8 + "cpu"], "at most 8"),
        (["--device", "cuda:0,"], "or several as in cuda:0,cuda:1"),
        (["--device", "cpu,cpu", "--engine", "ray"], "omit one of them"),
        (["--device", "cpu,cpu", "--num_frames", "1"], "can't share so few frames (1): give 1 devices"),
        (["--device", "cpu,cpu", "--compile", "true"], "omit compile"),
        (["--version", "svd", "--device", "cuda:0,cuda:1,cuda:2"], "3 devices can't share guidance's two halves"),
    ],
)
def test_devices_that_make_no_sense_together(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    version = [] if "--version" in words else ["--version", "svd_tiny"]
    assert run(sample, [*version, *words]) == 2
    assert complaint in capsys.readouterr().err
