"""Making a recorded clip again: the parameters that its record holds, and whether its files are still the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import UserError
from .outputs.record import file_sha256, read_record

# What may be given beside a record: nothing that changes the clip, but for the device's own noise and rounding.
MAY_DIFFER = ("output_folder", "device", "verbose", "input_path", "checkpoint", "config")


def recorded_parameters(record_path: Path) -> dict[str, Any]:
    """Everything that makes the clip again, by parameter name. Raises UserError for a file that is no record."""
    record = read_record(record_path)
    return {
        **record["parameters"],
        "input_path": record["input"]["path"],
        "checkpoint": record["checkpoint"]["path"],
        "device": record.get("device"),
        "precision": record.get("precision"),
        "fps": record["output"]["fps"],
    }


def check_unchanged(record_path: Path, *, image_path: Path, checkpoint_path: Path) -> None:
    """Compare the image's and the weights' SHA-256 with the record's. Raises UserError naming the file that differs."""
    record = read_record(record_path)
    for flag, section, path in (
        ("--input_path", "input", image_path),
        ("--checkpoint", "checkpoint", checkpoint_path),
    ):
        if not path.is_file():
            raise UserError(f"{record_path} needs the file {path}, which is not there: give its new place with {flag}")
        recorded = record[section]["sha256"]
        if recorded is not None and file_sha256(path) != recorded:
            raise UserError(
                f"{path} is not the file that the clip of {record_path} was made from (its SHA-256 differs):"
                f" give the right one with {flag}"
            )
