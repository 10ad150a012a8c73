"""A run's state on disk, in files of at most `PART_BYTES`, for places that take only small ones.

The parts of one step are named `state-STEP-KofN.safetensors`. Those of an earlier step are removed only once all of a
later step's are there, so a run killed while saving resumes from the earlier one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import UserError
from ..storage.files import write_whole

PART_BYTES = 15 * 2**20


def save_state(folder: Path, step: int, tensors: Mapping[str, Tensor], run: Mapping[str, Any]) -> None:
    """Write the tensors of a step, with the `run` they belong to, in place of any earlier step's."""
    parts = _parts(tensors)
    kept = set()
    for number, part in enumerate(parts, 1):
        path = folder / f"state-{step:06d}-{number}of{len(parts)}.safetensors"
        write_whole(path, partial(save_file, part, metadata={"run": json.dumps(run)}))
        kept.add(path)
    for path in folder.glob("state-*.safetensors"):
        if path not in kept:
            path.unlink()


def load_state(folder: Path, run: Mapping[str, Any]) -> tuple[int, dict[str, Tensor]] | None:
    """The latest step whose parts are all there, with its tensors; None if there is none.

    Raises UserError, naming what differs, if the state is that of another run.
    """
    complete = {}
    for first in folder.glob("state-*-1of*.safetensors"):
        _, number, share = first.stem.split("-")
        count = int(share.removeprefix("1of"))
        paths = [folder / f"state-{number}-{part}of{count}.safetensors" for part in range(1, count + 1)]
        if all(path.exists() for path in paths):
            complete[int(number)] = paths
    if not complete:
        return None
    step = max(complete)
    with safe_open(complete[step][0], "pt") as file:
        saved = json.loads(file.metadata()["run"])
    if saved != run:
        differing = ", ".join(sorted(key for key in saved.keys() | run.keys() if saved.get(key) != run.get(key)))
        raise UserError(
            f"{folder} holds the state of another run, which differs in {differing}; give this one its own"
            " --output_folder, or remove the state-* files to start over"
        )
    return step, {name: tensor for path in complete[step] for name, tensor in load_file(path).items()}


def _parts(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors in order, each part filled before the next one."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if parts[-1] and size + tensor.nbytes > PART_BYTES:
            parts.append({})
            size = 0
        parts[-1][name] = tensor
        size += tensor.nbytes
    return parts
