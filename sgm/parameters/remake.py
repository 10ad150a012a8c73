"""Making a recorded clip again: the parameters that its record holds.

A record may come from anyone. Only what makes the clip is taken from it: how it is sampled, with which model, and
what identifies image and weights. Where files are written to, what is fetched and how the work is done is for the
user alone to say.
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
LONGEST_COMPLAINT = 300
_REPOSITORY, _COMMIT = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII), re.compile(r"[0-9a-f]{40}")


def recorded_parameters(record_path: Path, given: Collection[str] = ()) -> dict[str, Any]:
    """Everything that makes the clip again, by parameter name; `given` are names that the user gives instead.

    Raises UserError for a file that is no record, and for a record that holds anything else.
    """
    record = read_record(record_path)
    parameters, output = record["parameters"], record["output"]
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
        "device": record.get("device"),
        "precision": record.get("precision"),
        "fp8": record.get("fp8", "off"),
        **{name: output[name] for name in ("fps", "formats", "quality") if name in output},
    }


def recorded_sampling(record: Mapping[str, Any]) -> SamplingParameters:
    """How a record's clip is sampled. Raises UserError where it has parameters beside those, version and config."""
    sampling = {"fps": record["output"]["fps"], **record["parameters"]}  # fps was none of the parameters once
    for name in ("version", "config"):
        sampling.pop(name, None)
    if others := sorted(sampling.keys() - parameters_of(SamplingParameters).keys()):
        raise UserError(
            f"there is a parameter {shortened(repr(others[0]))}, but a record may only hold version, config and how the"
            " clip is sampled: remove it, or use the version of this program that wrote it"
        )
    return SamplingParameters(**sampling)


def _check_config(record_path: Path, path: str) -> None:
    """Raises UserError where a file is no configuration, without a word of what it holds: it may be anybody's."""
    try:
        load_config("recorded", Path(path))
    except (UserError, OSError):
        raise UserError(
            f"{record_path} needs the configuration {shortened(repr(path))}, which can't be read as one: give it with"
            " --config"
        ) from None


def _checkpoint_address(record_path: Path, recorded: Mapping[str, Any]) -> str | None:
    """Where the recorded weights are: the commit of the repository that they came from, or their path."""
    if "repository" not in recorded:
        path: str | None = recorded["path"]
        return path
    repository, commit = recorded["repository"], recorded.get("revision", "")
    if not _REPOSITORY.fullmatch(repository) or not _COMMIT.fullmatch(commit):
        raise UserError(
            f"{record_path} names no repository and commit, but {shortened(repr(repository))} and"
            f" {shortened(repr(commit))}: remove both from the record, and give the weights with --checkpoint"
        )
    return f"{repository}@{commit}"
