"""The record of how a clip was made: a dict for JSON, with everything needed to make the clip again.

program     name, version
created     when, UTC, ISO 8601
parameters  every parameter of the run, resolved: no defaults left to look up
input       path, sha256 (both null if the image came from memory), width, height
checkpoint  path, sha256 (for a folder, one for each file read), and for weights from a repository on huggingface.co
            repository, revision (the commit); for a model with a text adapter text_adapter: path, sha256, and where
            that uses CLIP's text tower text_tower: the same as for the checkpoint; of a network that made frames
            between others, interpolator: release, path, sha256
model       the model's complete configuration
device, precision, fp8, memory (the mode), threads (torch's, which decide how sums are rounded on a CPU), ranks (the
            processes, one a device, that made it together), and device_name (the graphics card's)
output      frames, width, height, fps; when saved, formats and quality
camera      elevations_deg, azimuths_deg: one angle per view that was generated (orbits only)
files       SHA-256 of each of the clip's files, by what follows the clip's name: .mp4, /0000.jpg ... (added when saved)
packages    versions of Python and of the packages that decide what a clip looks like
stages      for each stage: seconds, peak_memory_bytes, memory (see `sgm.stages`); for all clips_at_once, the clips that
            went through the UNet together

In the file a path is relative to the record's folder if possible, so that both can be moved together; in the home
folder it begins with ~, so that it doesn't name the user. In memory it is absolute.

A record may come from anyone: its size, depth and types are limited, and a section or key unknown to this version makes
it unreadable, since what it stands for could be neither compared nor made again.
"""

from __future__ import annotations

import copy
import json
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from sgm import __version__
from sgm.errors import UserError, shortened
from sgm.storage.files import read_json

PACKAGES = ("torch", "numpy", "pillow", "safetensors", "rembg", "imageio-ffmpeg")
PLACES = ("path", "repository", "revision")  # where a file was found, which may change while its content doesn't
PATHS = (
    ("input", "path"),
    ("checkpoint", "path"),
    *(("checkpoint", part, "path") for part in ("text_adapter", "text_tower", "interpolator")),
    ("parameters", "config"),
)

MAX_BYTES = 4 * 2**20  # of a record; 1024 frames and their angles take 0.2 MiB
MAX_TEXT = 1000
MAX_PATH, MAX_PATH_PART = 4096, 255  # bytes, of Linux


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value < 2**31


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e12


def _is_path(value: Any) -> bool:
    """Whether it can name a file on this system; null stands for data from memory."""
    if not isinstance(value, str) or "\0" in value:
        return value is None
    try:
        encoded = os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return 0 < len(encoded) <= MAX_PATH and all(len(part) <= MAX_PATH_PART for part in encoded.split(b"/"))


def _is_sha256(value: Any) -> bool:
    return value is None or (isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None)


def _is_file(value: Any) -> bool:
    """Whether it is a file's path and SHA-256, perhaps with the repository and commit that it came from."""
    if not isinstance(value, dict) or not {"path", "sha256"} <= value.keys() <= {"path", "sha256", *PLACES}:
        return False
    named = all(map(_is_text, (value.get("repository", ""), value.get("revision", ""))))
    return named and None not in value.values() and _is_path(value["path"]) and _is_sha256(value["sha256"])


def _are_hashes(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_sha256, value.values()))


def _is_interpolator(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"release", "path", "sha256"}
        and None not in value.values()
        and _is_text(value["release"])
        and _is_path(value["path"])
        and _is_sha256(value["sha256"])
    )


def _are_parameters(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_parameter, value.values()))


def _is_parameter(value: Any) -> bool:
    return value is None or _is_text(value) or isinstance(value, bool | int | float) or _are_numbers(value)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text_or_none(value: Any) -> bool:
    return value is None or _is_text(value)


Check = Callable[[Any], bool]
REQUIRED: dict[str, dict[str, Check] | Check] = {
    "program": {"name": _is_text, "version": _is_text},
    "parameters": _are_parameters,
    "input": {"path": _is_path, "sha256": _is_sha256, "width": _is_count, "height": _is_count},
    "checkpoint": {"path": _is_path, "sha256": lambda value: _is_sha256(value) or _are_hashes(value)},
    "model": _is_mapping,
    "output": {"frames": _is_count, "width": _is_count, "height": _is_count, "fps": _is_number},
    "packages": _is_mapping,
    "stages": _is_mapping,
}
OPTIONAL: dict[str, dict[str, Check] | Check] = {
    "created": _is_text,
    "checkpoint": {
        **{"repository": _is_text, "revision": _is_text},
        **{"text_adapter": _is_file, "text_tower": _is_file, "interpolator": _is_interpolator},
    },
    "device": _is_text_or_none,
    "device_name": _is_text_or_none,
    "precision": _is_text_or_none,
    "fp8": _is_text,
    "memory": _is_text_or_none,
    "threads": _is_count,
    "ranks": _is_count,
    "clips_at_once": _is_count,
    "output": {"formats": _are_texts, "quality": _is_number},
    "camera": {"elevations_deg": _are_numbers, "azimuths_deg": _are_numbers},
    "files": _are_hashes,
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
    threads: int,
    ranks: int,
    clips_at_once: int,
    stages: Mapping[str, Mapping[str, Any]],
    elevations_deg: Sequence[float] | None = None,
    azimuths_deg: Sequence[float] | None = None,
) -> dict[str, Any]:
    """The record of one clip, equal to what `read_record` gives once it is written.

    image_file: as from `describe_file`; checkpoint_files: the content of the checkpoint section. image_size:
    (width, height) of the image as given. frames_shape: (T, H, W, 3). The angles are given only for orbits, one per
    view.
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
        "threads": threads,
        "ranks": ranks,
        "clips_at_once": clips_at_once,
        "output": {"frames": frames, "width": width, "height": height, "fps": fps},
        "packages": package_versions(),
        "stages": {name: dict(stage) for name, stage in stages.items()},
    }
    if elevations_deg is not None or azimuths_deg is not None:
        assert elevations_deg is not None, "a camera has both angles"
        assert azimuths_deg is not None, "a camera has both angles"
        assert len(elevations_deg) == len(azimuths_deg), "one elevation and one azimuth per view"
        record["camera"] = {"elevations_deg": elevations_deg, "azimuths_deg": azimuths_deg}
    as_json: dict[str, Any] = json.loads(_to_json(record))
    return as_json


def write_record(path: Path, record: Mapping[str, Any], folder: Path) -> None:
    """Write a record as JSON, with its paths as seen from the folder that it will be in."""
    written = copy.deepcopy(dict(record))
    _change_paths(written, lambda path: _portable(Path(path), folder.resolve()))
    path.write_text(_to_json(written) + "\n", encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """Read a record, with absolute paths. Raises UserError if the file is missing or isn't the record of a clip."""
    try:
        record = read_json(path, MAX_BYTES)
    except OSError as error:
        raise UserError(f"can't read the record {path}: {error.strerror}; give the .json saved with a clip") from error
    except ValueError as error:
        raise UserError(f"{path} is not a record: it isn't JSON ({error}); give the .json saved with a clip") from error
    if missing := list(_missing(record)):
        raise UserError(
            f"{path} is not the record of a clip: it has no {', '.join(missing)}; give the .json saved with a clip"
        )
    for complaint in _complaints(record):
        raise UserError(f"{path} is not the record of a clip: {complaint}; give the .json saved with a clip")
    assert isinstance(record, dict)
    folder = path.parent.resolve()
    _change_paths(record, lambda path: _absolute(path, folder))
    return record


def _change_paths(record: dict[str, Any], change: Callable[[str], str]) -> None:
    for *sections, key in PATHS:
        holder = record
        for section in sections:
            holder = holder.get(section, {})
        if holder.get(key):
            holder[key] = change(holder[key])


def identity(described: Any) -> Any:
    """A description of files without their locations: equal for the same content, wherever it is."""
    if isinstance(described, Mapping):
        return {key: identity(value) for key, value in described.items() if key not in PLACES}
    return [identity(value) for value in described] if isinstance(described, list) else described


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
    for section, checks in REQUIRED.items():
        found = record.get(section) if isinstance(record, dict) else None
        if not isinstance(found, dict):
            yield section
        elif isinstance(checks, dict):
            yield from (f"{section}.{key}" for key in checks if key not in found)


def _complaints(record: Mapping[str, Any]) -> Iterator[str]:
    """What is unknown or of the wrong type in a record that lacks nothing."""
    for section, value in record.items():
        checks = [known[section] for known in (REQUIRED, OPTIONAL) if section in known]
        if not checks:
            yield f"{shortened(repr(section))} is unknown to this version of the program"
        elif not isinstance(checks[0], dict):
            if not checks[0](value):
                yield f"its {section} can't be {shortened(repr(value))}"
        elif not isinstance(value, dict):
            yield f"its {section} can't be {shortened(repr(value))}"
        else:
            of_key = {key: check for known in checks if isinstance(known, dict) for key, check in known.items()}
            for key, inner in value.items():
                if key not in of_key:
                    yield f"{section}.{shortened(repr(key))} is unknown to this version of the program"
                elif not of_key[key](inner):
                    yield f"its {section}.{key} can't be {shortened(repr(inner))}"
    for section in ("input", "checkpoint"):
        if (record[section]["path"] is None) != (record[section]["sha256"] is None):
            yield f"its {section} has a path without sha256, or sha256 without a path"
    if not _is_path(record["parameters"].get("config")):
        yield f"its config can't be {shortened(repr(record['parameters']['config']))}"


def _portable(path: Path, folder: Path) -> str:
    """A path as written into a record in the folder, whose own path contains no links.

    Relative if both are in the current folder, or in the folder's parent; from ~ in the home folder. A base that
    contains the home folder doesn't count, since the path would then name its owner.
    """
    place = path.parent.resolve() / path.name  # keeps a link at the end: its name says what kind of file it is
    home = _home()
    for base in filter(None, (_current_folder(), folder.parent)):
        is_wide = base == base.parent or (home is not None and base in home.parents)
        if not is_wide and place.is_relative_to(base) and folder.is_relative_to(base):
            relative = Path(os.path.relpath(place, folder)).as_posix()
            return relative if relative.startswith("../") else f"./{relative}"
    if home is not None and place.is_relative_to(home):
        return f"~/{place.relative_to(home).as_posix()}"
    return str(path)


def _absolute(written: str, folder: Path) -> str:
    home = _home()
    if written.startswith("~/") and home is not None:
        return str(home / written[2:])
    return written if Path(written).is_absolute() else os.path.normpath(folder / written)


def _current_folder() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:  # it has been removed
        return None


def _home() -> Path | None:
    """The home folder; None if there is none, or it is the root."""
    try:
        home = Path.home().resolve()
    except (RuntimeError, OSError):
        return None
    return home if home != home.parent else None


def _to_json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=2, allow_nan=False, default=_path_to_text)


def _path_to_text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} can't be part of a record")
