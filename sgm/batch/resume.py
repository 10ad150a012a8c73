"""The resume rule: a clip is done where its record is there, tells of the same making, and its files are whole.

Nothing else is kept, no list and no database: whoever sees the output folder sees what is done. The same making is the
same image by its SHA-256, the same parameters, the same configuration and the same weights by their SHA-256. Device
and precision count where they are asked for, for the defaults of another machine would make every clip again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..checkpoint.files import Checkpoint
from ..config import NO_TEXT, ModelConfig
from ..errors import UserError, shortened
from ..generation.fitting import fitted_size
from ..outputs.clip_files import is_whole
from ..outputs.record import identity, read_record
from ..parameters.parameter import kind_of_device
from ..parameters.remake import recorded_sampling
from ..parameters.request import Request
from ..parameters.sampling import SamplingSettings
from ..storage.files import file_sha256, user_checkpoint_folder
from .items import Item

RECORD_NAME = re.compile(r"(?P<name>.+?)(-\d+)?\.json", re.DOTALL)


class Records:
    """The records in the folders of a run, listed once a folder, to find the clip of an item among them."""

    def __init__(self, request: Request, checkpoint: Checkpoint):
        self._request, self._checkpoint = request, checkpoint
        self._listed: dict[Path, Mapping[str, Sequence[Path]]] = {}

    def find(self, item: Item) -> Path | None:
        """The record of a finished clip that the item asks for, or None where it is still to be made."""
        folder = item.folder(self._request.output_folder)
        if folder not in self._listed:
            self._listed[folder] = _records_by_name(folder)
        for path in self._listed[folder].get(item.stem, ()):
            try:
                record = read_record(path)
            except UserError:  # another program's file
                continue
            if _tells_of(record, item, self._request, self._checkpoint) and is_whole(path, record):
                return path
        return None


def claim_key(item: Item, request: Request, checkpoint: Checkpoint) -> str:
    """What two processes that want the same clip call it alike, before it is made, by whatever paths they have.

    Device and precision don't count, for a clip of either may do for both: two cards of a machine share a batch.
    """
    wanted = {
        "item": {**asdict(item), "line": None, "image_path": _content(item.image_path)},
        "model": asdict(request.model),
        "checkpoint": identity(checkpoint.used_for(item.settings).describe()),
        **{name: getattr(request, name) for name in ("fp8", "formats", "quality")},
    }
    return hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16]


def _content(image_path: Path) -> str:
    """What tells an image from others: its SHA-256, or its path where it can't be read, of which its turn will tell."""
    try:
        return file_sha256(image_path)
    except OSError:
        return str(image_path.absolute())


def _records_by_name(folder: Path) -> dict[str, list[Path]]:
    """Paths of JSON files, the lowest number first, by the name of clip that they may be of: photo-1 or photo."""
    found = defaultdict(list)
    names = (entry.name for entry in os.scandir(folder)) if folder.is_dir() else iter(())
    for file_name in sorted(names, key=lambda name: (len(name), name)):
        if match := RECORD_NAME.fullmatch(file_name):
            for name in {match["name"], file_name.removesuffix(".json")}:
                found[name].append(folder / file_name)
    return found


def _tells_of(record: Mapping[str, Any], item: Item, request: Request, checkpoint: Checkpoint) -> bool:
    """Whether a record is that of the clip which the item asks for; what is quick to compare comes first."""
    output, image = record["output"], record["input"]
    if _recorded_model(record) != _as_json(request.model) or not _has_formats(output, request):
        return False
    if request.device is not None and kind_of_device(request.device) != kind_of_device(record.get("device")):
        return False
    if request.precision is not None and request.precision != record.get("precision"):
        return False
    if request.fp8 != record.get("fp8", "off"):
        return False
    if _recorded_settings(record, request.model) != _with_size(item.settings, request.model, image):
        return False
    return image["sha256"] == _content(item.image_path) and identity(record["checkpoint"]) == identity(
        checkpoint.used_for(item.settings).describe()
    )


def _has_formats(output: Mapping[str, Any], request: Request) -> bool:
    return set(request.formats) <= set(output.get("formats", ())) and output.get("quality") == request.quality


def _recorded_settings(record: Mapping[str, Any], model: ModelConfig) -> SamplingSettings | None:
    """The settings that a record's parameters resolve to; None where they are none of this program's."""
    try:
        return recorded_sampling(record).resolved_for(model)
    except UserError:
        return None


def _with_size(settings: SamplingSettings, model: ModelConfig, image: Mapping[str, Any]) -> SamplingSettings | None:
    """The settings with the frame's size that follows from the image's; None where none does."""
    try:
        width, height = fitted_size((image["width"], image["height"]), model, settings.framing)
    except UserError:  # the recorded size is not that of an image
        return None
    return replace(settings, framing=replace(settings.framing, width=width, height=height))


@cache
def _as_json(values: ModelConfig) -> dict[str, Any]:
    as_json: dict[str, Any] = json.loads(json.dumps(asdict(values)))
    del as_json["enhance"]  # a parameter's default, which records hold resolved
    return as_json


def _recorded_model(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record's configuration as one of today: an older one names a family, and knows nothing of prompts."""
    model = {"text": asdict(NO_TEXT), **record["model"]}
    model.pop("enhance", None)
    family = model.pop("family", None)
    if family in ("svd", "sv3d"):
        model |= {"input": "object" if family == "sv3d" else "picture", "ends_at_input": family == "sv3d"}
    return model


def check_unchanged(record_path: Path, *, image_path: Path, checkpoint: Checkpoint, model: ModelConfig) -> None:
    """Compare image, weights and the model's configuration with the record's. Raises UserError naming what differs."""
    record = read_record(record_path)
    now, then = _as_json(model), _recorded_model(record)
    if changed := sorted(key for key in now.keys() | then if now.get(key) != then.get(key)):
        named = [key if key in now else shortened(repr(key)) for key in changed[:5]]
        raise UserError(
            f"the configuration of {model.version} is not the one of {record_path} (it differs in"
            f" {', '.join(named)}): give the right one with --config"
        )
    try:
        image_sha256 = file_sha256(image_path)
    except OSError as error:
        raise UserError(
            f"{record_path} needs the image {shortened(repr(str(image_path)))}, which can't be read"
            f" ({error.strerror}): give its new place with --input_path"
        ) from error
    if record["input"]["sha256"] not in (None, image_sha256):  # none is recorded of an image from memory
        raise _not_the_same(image_path, record_path, "--input_path")
    described, recorded = identity(checkpoint.describe()), identity(record["checkpoint"])
    interpolator = checkpoint.interpolator
    if interpolator is not None and described.pop("interpolator") != recorded.pop("interpolator", None):
        raise _not_the_same(interpolator.path, record_path, "--interpolator_weights")
    if described.pop("text_adapter", None) != recorded.pop("text_adapter", None):
        assert checkpoint.text_adapter is not None, "the configurations differ where only one of the two has an adapter"
        raise _not_the_same(checkpoint.text_adapter, record_path, "--text_adapter")
    if described.pop("text_tower", None) != recorded.pop("text_tower", None):
        raise UserError(
            f"CLIP's text tower is not the one that the clip of {record_path} was made with (its SHA-256 differs): put"
            f" that one into {user_checkpoint_folder()}"
        )
    if described != recorded:
        raise _not_the_same(checkpoint.path, record_path, "--checkpoint")


def _not_the_same(path: Path, record_path: Path, flag: str) -> UserError:
    return UserError(
        f"{shortened(repr(str(path)))} is not what the clip of {record_path} was made from (its SHA-256 differs):"
        f" give the right one with {flag}"
    )
