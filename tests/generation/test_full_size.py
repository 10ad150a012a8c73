"""Whole-size models, from the command line: they load from a released file's keys and run in little memory.

Slow: several minutes, up to 12 GiB of memory and 6 GB of disk. Run with `pytest -m slow tests/test_full_size.py`.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from sgm.outputs.video import read_video
from tests.small_models import key_list

PROJECT = Path(__file__).parent.parent.parent
MEMORY_LIMIT = 12 * 2**30
CONVERSION_MEMORY_LIMIT = 1.5 * 2**30
pytestmark = pytest.mark.slow


def write_random_checkpoint(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A .safetensors file of random float16 weights, written tensor by tensor so as to hold one at a time.

    The format: the header's length in 8 bytes, the header in JSON, the tensors' bytes one after the other.
    """
    header, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    generator = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key, shape in shapes.items():
            numbers = generator.standard_normal(math.prod(shape), dtype=np.float32)
            if len(shape) > 1:  # weights keep the variance, norms are near 1, biases near 0
                numbers /= np.float32(math.sqrt(math.prod(shape[1:])))
            else:
                numbers = 0.1 * numbers + key.endswith("weight")
            file.write(numbers.astype(np.float16).tobytes())


def run_and_watch(command: list[str]) -> tuple[int, str, int]:
    """Exit code, output and the most memory that was resident, mapped files and all, looked at every 20 ms.

    The kernel's own high-water mark won't do, because the program resets it at each of its stages.
    """
    peak = 0
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        pages = Path(f"/proc/{process.pid}/statm")
        while process.poll() is None:
            resident = pages.read_text().split()
            peak = max(peak, 4096 * int(resident[1]) if resident else 0)
            time.sleep(0.02)
        assert process.stdout is not None
        return process.returncode, process.stdout.read(), peak


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is watched through Linux's /proc")
@pytest.mark.parametrize("version", ["svd", "sv3d_p"])
def test_whole_size_runs_on_a_cpu_within_12_gib(version: str, tmp_path: Path) -> None:
    image = Image.radial_gradient("L").convert("RGB")
    if version == "sv3d_p":
        image.putalpha(Image.radial_gradient("L").point(lambda distance: 255 * (distance < 120)))
    image.save(tmp_path / "disc.png")
    checkpoint = tmp_path / "weights.safetensors"
    try:
        write_random_checkpoint(checkpoint, key_list(version))
        parameters = {
            "input_path": tmp_path / "disc.png",
            "version": version,
            "checkpoint": checkpoint,
            "output_folder": tmp_path / "clips",
            "num_frames": 3,
            "num_steps": 2,
            "width": 64,
            "height": 64,
            "device": "cpu",
        }
        words = [f"--{name}={value}" for name, value in parameters.items()]
        returncode, output, peak = run_and_watch([sys.executable, str(PROJECT / "sample.py"), *words])
    finally:
        checkpoint.unlink(missing_ok=True)
    assert returncode == 0, output
    frames = read_video(tmp_path / "clips" / "disc.mp4")
    assert frames.shape == (3, 64, 64, 3)
    assert frames[0].std() > 1  # NaN would have become an even black
    stages = json.loads((tmp_path / "clips" / "disc.json").read_text())["stages"]
    peak = max(peak, *(stage["peak_memory_bytes"] for stage in stages.values()))
    sys.stdout.write(f"{version}: {peak / 2**30:.2f} GiB at most; {stages}\n")
    assert peak < MEMORY_LIMIT


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is watched through Linux's /proc")
def test_whole_size_changes_its_layout_there_and_back_in_little_memory(tmp_path: Path) -> None:
    released, folder, back = tmp_path / "svd.safetensors", tmp_path / "diffusers", tmp_path / "back.safetensors"
    write_random_checkpoint(released, key_list("svd"))
    try:
        for source, target in ((released, folder), (folder, back)):
            command = [sys.executable, "-m", "sgm.checkpoint", "convert", str(source), str(target), "--version", "svd"]
            returncode, output, peak = run_and_watch(command)
            assert returncode == 0, output
            sys.stdout.write(f"{target.name}: {peak / 2**30:.2f} GiB at most\n")
            assert peak < CONVERSION_MEMORY_LIMIT
        with safe_open(released, framework="pt") as before, safe_open(back, framework="pt") as after:
            keys = sorted(after.keys())
            assert len(keys) > 1500
            for key in keys[::10]:
                assert torch.equal(before.get_tensor(key), after.get_tensor(key)), key
    finally:
        for path in (released, back, *folder.glob("*/*.safetensors")):
            path.unlink(missing_ok=True)
