"""The record of how a clip was made: a dict that JSON can hold, enough to make the clip again.

program     name, version
created     when, UTC, ISO 8601
parameters  every parameter of the run, resolved: no defaults left to look up
input       path, sha256 (both null where the image came from memory), width, height
checkpoint  path, sha256 (of a folder that of each file that was read), and for weights from a repository of
            huggingface.co repository, revision (the commit)
model       the model's configuration, whole
device, precision, fp8, memory (the mode), and device_name, the graphics card's own
output      frames, width, height, fps; when saved, formats and quality
camera      elevations_deg, azimuths_deg: one angle a frame (orbits only)
files       SHA-256 of each of the clip's files, by what follows the clip's name: .mp4, /0000.jpg ... (added when saved)
packages    versions of Python and of the packages that decide what a clip looks like
stages      for each stage: seconds, peak_memory_bytes, memory (see `Stages`); of all the clips_at_once, which went
            through the UNet together
"""

import hashlib
import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from sgm import __version__
from sgm.errors import UserError

PACKAGES = ("torch", "numpy", "pillow", "safetensors", "rembg", "imageio-ffmpeg")

REQUIRED_KEYS: dict[str, tuple[str, ...]] = {
    "program": ("name", "version"),
    "parameters": (),
    "input": ("path", "sha256", "width", "height"),
    "checkpoint": ("path", "sha256"),
    "model": (),
    "output": ("frames", "width", "height", "fps"),
    "packages": (),
    "stages": (),
}


def build_record(
    *,
    parameters: Mapping[str, Any],
    image_file: Mapping[str, str | None],
    image_size: tuple[int, int],
    checkpoint_files: Mapping[str, Any],
    model: Mapping[str, Any],
    frames_shape: tuple[int, ...],
    fps: float,
    device: str,
    device_name: str | None,
    precision: str,
    fp8: str,
    memory: str,
    clips_at_once: int,
    stages: Mapping[str, Mapping[str, Any]],
    elevations_deg: Sequence[float] | None = None,
    azimuths_deg: Sequence[float] | None = None,
) -> dict[str, Any]:
    """The record of one clip, equal to what `read_record` gives once it is written.

    image_file: as of `describe_file`; checkpoint_files: what the checkpoint section holds. image_size:
    (width, height) of the image as given. frames_shape: (T, H, W, 3). The angles are given for orbits only, one a
    frame.
    """
    frames, height, width = frames_shape[:3]
    record: dict[str, Any] = {
        "program": {"name": "sgm", "version": __version__},
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "parameters": dict(parameters),
        "input": {**image_file, "width": image_size[0], "height": image_size[1]},
        "checkpoint": dict(checkpoint_files),
        "model": dict(model),
        "device": device,
        "device_name": device_name,
        "precision": precision,
        "fp8": fp8,
        "memory": memory,
        "clips_at_once": clips_at_once,
        "output": {"frames": frames, "width": width, "height": height, "fps": fps},
        "packages": package_versions(),
        "stages": {name: dict(stage) for name, stage in stages.items()},
    }
    if elevations_deg is not None or azimuths_deg is not None:
        assert elevations_deg is not None, "a camera has both angles"
        assert azimuths_deg is not None, "a camera has both angles"
        assert len(elevations_deg) == len(azimuths_deg) == frames, "one elevation and one azimuth a frame"
        record["camera"] = {"elevations_deg": elevations_deg, "azimuths_deg": azimuths_deg}
    as_json: dict[str, Any] = json.loads(_to_json(record))
    return as_json


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON."""
    path.write_text(_to_json(record) + "\n", encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """Read a record; UserError where the file is missing, is no JSON or lacks something that a record has."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"can't read the record {path}: {error.strerror}; give the .json beside a clip") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        raise UserError(f"{path} is no record: it isn't JSON ({error}); give the .json beside a clip") from error
    missing = list(_missing(record))
    if missing:
        raise UserError(f"{path} is no record of a clip: it has no {', '.join(missing)}; give the .json beside a clip")
    assert isinstance(record, dict)
    return record


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read piece by piece, once for as long as the file doesn't change."""
    status = path.stat()
    return _file_sha256(path.resolve(), status.st_size, status.st_mtime_ns)


def describe_file(path: Path | None) -> dict[str, str | None]:
    """A file's absolute path and SHA-256, both None for what came from memory."""
    if path is None:
        return {"path": None, "sha256": None}
    return {"path": str(path.resolve()), "sha256": file_sha256(path)}


class Stages:
    """Seconds and peak memory of the named stages of one run.

        stages = Stages(device="cuda")
        with stages.measure("sampling"):
            ...
        stages.measured == {"sampling": {"seconds": 12.3, "peak_memory_bytes": 8_000_000_000, "memory": "cuda"}}

    What "memory" says was counted: "cuda", the most that torch held on the device during the stage; "resident", the
    most main memory that the process held during the stage; "resident_since_start", the same since the process started,
    where the system can't forget earlier peaks; null where it tells nothing. A stage that is measured again adds its
    seconds and keeps the higher peak. Stages don't nest.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.measured: dict[str, dict[str, Any]] = {}
        self._device = device
        self._running = False

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measure what runs inside as a stage of this name; a stage that fails isn't noted."""
        assert not self._running, "stages don't nest"
        self._running = True
        try:
            reset = _reset_peak_memory(self._device)
            start = time.perf_counter()
            yield
            memory, peak_bytes = _peak_memory(self._device, reset)  # waits for the device, so the time is read after it
            seconds = time.perf_counter() - start
        finally:
            self._running = False
        earlier = self.measured.get(name, {"seconds": 0.0, "peak_memory_bytes": peak_bytes})
        if peak_bytes is not None:
            peak_bytes = max(peak_bytes, earlier["peak_memory_bytes"])
        seconds = round(earlier["seconds"] + seconds, 3)
        self.measured[name] = {"seconds": seconds, "peak_memory_bytes": peak_bytes, "memory": memory}


def _reset_peak_memory(device: str) -> bool:
    """Forget earlier peaks, or return False where that can't be done."""
    if device.startswith("cuda"):
        torch = sys.modules["torch"]
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return True
    if device == "mps":
        sys.modules["torch"].mps.synchronize()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: 5 resets the peak resident size, see proc(5)
    except OSError:
        return False
    return True


def _peak_memory(device: str, reset: bool) -> tuple[str | None, int | None]:
    """What was counted, as the docstring of `Stages` names it, and the peak in bytes."""
    if device.startswith("cuda"):
        torch = sys.modules["torch"]
        torch.cuda.synchronize(device)
        return "cuda", torch.cuda.max_memory_allocated(device)
    if device == "mps":
        sys.modules["torch"].mps.synchronize()
    if reset:
        status = Path("/proc/self/status").read_text()
        high_water = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), None)
        if high_water is not None:
            return "resident", int(high_water) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None, None
    unit = 1 if sys.platform == "darwin" else 1024
    return "resident_since_start", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@cache
def _file_sha256(path: Path, size: int, modified_ns: int) -> str:
    """The size and the time of the last change are there to tell apart a file's contents over time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of Python and of those of PACKAGES that are installed."""
    versions = {package: _version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **{name: found for name, found in versions.items() if found}}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _missing(record: Any) -> Iterator[str]:
    """What a record lacks, as section or section.key."""
    for section, keys in REQUIRED_KEYS.items():
        found = record.get(section) if isinstance(record, dict) else None
        if not isinstance(found, dict):
            yield section
        else:
            yield from (f"{section}.{key}" for key in keys if key not in found)


def _to_json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=2, allow_nan=False, default=_path_to_text)


def _path_to_text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} can't be part of a record")
