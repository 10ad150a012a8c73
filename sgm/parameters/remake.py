"""Making a recorded clip again: the parameters that its record holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..outputs.record import read_record

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


def _checkpoint_address(recorded: dict[str, Any]) -> str:
    """Where the recorded weights are: the commit of the repository that they came from, or their path."""
    if "repository" in recorded:
        return f"{recorded['repository']}@{recorded['revision']}"
    return str(recorded["path"])
