"""Making a recorded clip again: the parameters that its record holds, and whether its files are still the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .checkpoint.files import Checkpoint
from .config import ModelConfig
from .errors import UserError
from .outputs.record import read_record
from .storage.hashing import file_sha256

# What may be given beside a record: nothing that changes the clip, but for the device's own noise and rounding.
MAY_DIFFER = (
    "output_folder",
    "device",
    "memory",
    "compile",
    "verbose",
    "input_path",
    "checkpoint",
    "download",
    "config",
)


def kind_of_device(device: str | None) -> str | None:
    """`cuda` for cuda:1 and so on."""
    return device.partition(":")[0] if device else None


def recorded_parameters(record_path: Path) -> dict[str, Any]:
    """Everything that makes the clip again, by parameter name. Raises UserError for a file that is no record."""
    record = read_record(record_path)
    return {
        **record["parameters"],
        "input_path": record["input"]["path"],
        "checkpoint": _checkpoint_address(record["checkpoint"]),
        "device": record.get("device"),
        "precision": record.get("precision"),
        "fp8": record.get("fp8", "off"),
        **{name: record["output"][name] for name in ("fps", "formats", "quality") if name in record["output"]},
    }


def check_unchanged(record_path: Path, *, image_path: Path, checkpoint: Checkpoint, model: ModelConfig) -> None:
    """Compare image, weights and the model's configuration with the record's. Raises UserError naming what differs."""
    record = read_record(record_path)
    now = json.loads(json.dumps(asdict(model)))
    if changed := sorted(key for key in now.keys() | record["model"] if now.get(key) != record["model"].get(key)):
        raise UserError(
            f"the configuration of {model.version} is not the one of {record_path} (it differs in"
            f" {', '.join(changed)}): give the right one with --config"
        )
    if not image_path.is_file():
        raise UserError(
            f"{record_path} needs the file {image_path}, which is not there: give its new place with --input_path"
        )
    image_sha256 = record["input"]["sha256"]
    if image_sha256 is not None and file_sha256(image_path) != image_sha256:
        raise _not_the_same(image_path, record_path, "--input_path")
    if checkpoint.describe()["sha256"] != record["checkpoint"]["sha256"]:
        raise _not_the_same(checkpoint.path, record_path, "--checkpoint")


def _checkpoint_address(recorded: dict[str, Any]) -> str:
    """Where the recorded weights are: the commit of the repository that they came from, or their path."""
    if "repository" in recorded:
        return f"{recorded['repository']}@{recorded['revision']}"
    return str(recorded["path"])


def _not_the_same(path: Path, record_path: Path, flag: str) -> UserError:
    return UserError(
        f"{path} is not what the clip of {record_path} was made from (its SHA-256 differs):"
        f" give the right one with {flag}"
    )
