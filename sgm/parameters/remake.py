"""Making a recorded clip again, from the parameters in its record.

A record may come from anyone. Only what determines the clip is taken from it: how it is sampled, with which model, and
what identifies image and weights. Where files are written, what is downloaded and how the work is done is up to the
user alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..config import load_config
from ..errors import UserError, shortened
from ..outputs.record import read_record
from .parameter import parameters_of
from .sampling import SamplingParameters

# What may be given along with a record: nothing that changes the clip, except for a device's own noise and rounding.
MAY_DIFFER = (
    "output_folder",
    "device",
    "memory",
    "compile",
    "verbose",
    "input_path",
    "checkpoint",
    "interpolator_weights",
    "download",
    "config",
    "text_adapter",
)
LONGEST_COMPLAINT = 300
_REPOSITORY, _COMMIT = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII), re.compile(r"[0-9a-f]{40}")


def recorded_parameters(record_path: Path, given: Collection[str] = ()) -> dict[str, Any]:
    """Everything needed to make the clip again, by parameter name; `given` names what the user gives instead.

    Raises UserError for a file that isn't a record, and for a record that holds anything else.
    """
    record = read_record(record_path)
    parameters, output = _completed(record), record["output"]
    try:
        recorded_sampling(record)
    except UserError as error:
        raise UserError(f"in {record_path}, {shortened(str(error), LONGEST_COMPLAINT)}") from error
    if parameters.get("config") is not None and "config" not in given:
        _check_config(record_path, parameters["config"])
    return {
        **parameters,
        "input_path": record["input"]["path"],
        "checkpoint": _checkpoint_address(record_path, record["checkpoint"]),
        "interpolator_weights": record["checkpoint"].get("interpolator", {}).get("path"),
        "text_adapter": record["checkpoint"].get("text_adapter", {}).get("path"),
        "device": record.get("device"),
        "precision": record.get("precision"),
        "fp8": record.get("fp8", "off"),
        **{name: output[name] for name in ("formats", "quality") if name in output},
    }


def recorded_sampling(record: Mapping[str, Any]) -> SamplingParameters:
    """How a record's clip is sampled. Raises UserError for parameters other than those, version and config."""
    sampling = _completed(record)
    for name in ("version", "config"):
        sampling.pop(name, None)
    if others := sorted(sampling.keys() - parameters_of(SamplingParameters).keys()):
        raise UserError(
            f"there is a parameter {shortened(repr(others[0]))}, but a record may only hold version, config and how the"
            " clip is sampled: remove it, or use the version of this program that wrote it"
        )
    return SamplingParameters(**sampling)


def _completed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a record, with what older records lack: their clips play as they were made."""
    return {"enhance": "none", "fps": record["output"]["fps"], **record["parameters"]}


def _check_config(record_path: Path, path: str) -> None:
    """Raise UserError if a file isn't a configuration, without revealing any of its content: it may be anyone's."""
    try:
        load_config("recorded", Path(path))
    except (UserError, OSError):
        raise UserError(
            f"{record_path} needs the configuration {shortened(repr(path))}, which can't be read as one: give it with"
            " --config"
        ) from None


def _checkpoint_address(record_path: Path, recorded: Mapping[str, Any]) -> str | None:
    """Where the recorded weights are: the repository and commit that they came from, or their path."""
    if "repository" not in recorded:
        path: str | None = recorded["path"]
        return path
    repository, commit = recorded["repository"], recorded.get("revision", "")
    if not _REPOSITORY.fullmatch(repository) or not _COMMIT.fullmatch(commit):
        raise UserError(
            f"{record_path} names {shortened(repr(repository))} and {shortened(repr(commit))}, which aren't a"
            " repository and a commit: remove both from the record, and give the weights with --checkpoint"
        )
    return f"{repository}@{commit}"
