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
stages      for each stage: seconds, peak_memory_bytes, memory (see `sgm.stages`); of all the clips_at_once, which went
            through the UNet together
"""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
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
