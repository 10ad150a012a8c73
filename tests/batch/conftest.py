"""Images, words and processes for the tests of batches: svd_tiny at its smallest."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgm.__main__ import sample
from sgm.parameters.sample_command import run

PROJECT = Path(__file__).parents[2]
SMALL = ["--version", "svd_tiny", "--num_frames", "2", "--num_steps", "1", "--width", "32", "--height", "32"]
SMALL += ["--enhance", "none"]


@pytest.fixture
def make_image():
    """A function that writes an image of random colours at a path, whose folder it makes."""

    def make(path: Path, seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, format="PNG")
        return path

    return make


@pytest.fixture
def images(tmp_path, make_image):
    """A folder `in` with a.png, b.png and c.png."""
    for seed, name in enumerate("abc"):
        make_image(tmp_path / "in" / f"{name}.png", seed)
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path):
    """The output folder, not made yet."""
    return tmp_path / "out"


@pytest.fixture
def mounted():
    """A function: inside it, a tmpfs of its own is at a folder, with options such as `size=100k`."""
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("mounting takes root")

    @contextmanager
    def mount(folder: Path, options: str):
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting takes more rights")
        try:
            yield
        finally:
            subprocess.run(["umount", folder], check=True)

    return mount


@pytest.fixture
def run_here(out):
    """A function that runs sample.py's work in this process on an input path, small; returns the exit code."""

    def run_it(input_path: Path, *words: str | Path, device: str | None = "cpu") -> int:
        files = ["--input_path", input_path, "--output_folder", out]
        on = ["--device", device] if device else []
        return run(sample, [str(word) for word in (*files, *SMALL, *on, *words)])

    return run_it


@pytest.fixture
def start(out):
    """A function that starts the same as a process of its own."""
    processes = []

    def start_it(
        input_path: Path, *words: str | Path, python: tuple[str, ...] = (), environment=None, **options: object
    ):
        command = [sys.executable, *python, PROJECT / "sample.py", "--input_path", input_path, "--output_folder", out]
        environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"} | (environment or {})
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(
            [str(word) for word in (*command, *SMALL, "--device", "cpu", *words)],
            cwd=PROJECT,
            env=environment,
            **pipes,
            **options,
        )
        processes.append(process)
        return process

    yield start_it
    for process in processes:
        process.kill()
        process.communicate()
