"""Where a run stands, on disk: files of at most `PART_BYTES`, so that they pass through whatever takes only small ones.

The parts of one step are named `state-STEP-KofN.safetensors`. Those of an earlier step are removed only when all of a
later step are there, so a run that is killed while it saves goes on from the earlier one.
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
    """Writes the tensors of a step, and what `run` they belong to, in place of any earlier step's."""
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
    """The latest step whose parts are all there, with its tensors; None where there is none.

    Raises UserError, which names what differs, for the state of another run than `run`.
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
            f"{folder} holds the state of another run, which differs in {differing}; give an --output_folder of its"
            " own to this one, or remove the state-* files to start anew"
        )
    return step, {name: tensor for path in complete[step] for name, tensor in load_file(path).items()}


def _parts(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors in their order, as many in each part as it holds."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if parts[-1] and size + tensor.nbytes > PART_BYTES:
            parts.append({})
            size = 0
        parts[-1][name] = tensor
        size += tensor.nbytes
    return parts
