"""The plan of a run: every clip that it asks for, checked before anything is made.

An input path is an image, a folder of images, a pattern, a text file with a path a line, or a JSON Lines file, in which
each line is an object: `input_path`, and optionally `output_name` and any sampling parameter for its image.
Relative paths in a file are relative to the file's folder. A clip's name is its image's path below the folder, the
pattern's fixed part or the file's folder, without suffix; an image from elsewhere has its file's name alone.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import UserError, did_you_mean
from ..generation.prompting import remarks_on_prompt
from ..inputs.find import check_image_path, fixed_part, images_in, images_like, is_folder, is_pattern
from ..outputs.publishing import check_name
from ..parameters.parameter import NAME, PATH, Parameter, parameters_of
from ..parameters.request import Request
from ..parameters.sampling import SamplingParameters, SamplingSettings, ignored_parameters

PATH_LIST, JSON_LINES = ".txt", (".jsonl", ".ndjson")
MAX_PART_BYTES = 200  # file systems allow 255, of which numbers and suffixes need some
MAX_NAME_BYTES = 1000
MAX_LINE = 100_000  # characters of a list's line; a thousand angles take a fifth of it
LONGEST_COMPLAINT = 300

OF_SAMPLING = parameters_of(SamplingParameters)
OF_LINE: dict[str, Parameter] = {
    "input_path": Parameter(PATH, "The image."),
    "output_name": Parameter(NAME, "The clip's name, with / where it goes into a subfolder of the output folder."),
    **OF_SAMPLING,
}


@dataclass(frozen=True)
class Item:
    """One clip to make.

    name: below the output folder, with / between folders and without suffix. settings: of the sampling, resolved for
    the version. line: of the file that lists it, from 1. single: whether it is one image given by its path, rather than
    one of a batch: it is made even where such a clip is there already, and what goes wrong with it ends the run.
    """

    image_path: Path
    name: str
    settings: SamplingSettings
    line: int | None = None
    single: bool = False

    def folder(self, output_folder: Path) -> Path:
        """The folder that the clip goes to. Raises UserError where a link leads it out of the output folder."""
        folder = output_folder / PurePosixPath(self.name).parent
        try:
            inside = folder.resolve().is_relative_to(output_folder.resolve())
        except (OSError, RuntimeError):  # links in a circle
            inside = False
        if not inside:
            raise UserError(f"{folder} is a link that leads out of output_folder {output_folder}: remove it")
        return folder

    @property
    def stem(self) -> str:
        """The name without its folders."""
        return PurePosixPath(self.name).name


def is_single(request: Request) -> bool:
    """Whether one image is asked for by its path, rather than a batch."""
    path = request.input_path
    return not (is_folder(path) or path.suffix.lower() in (PATH_LIST, *JSON_LINES) or is_pattern(path))


def plan_items(request: Request, warn: Callable[[str], object]) -> list[Item]:
    """All clips that a request asks for, in order.

    `warn` is called with a line about what is ignored, and about each prompt that isn't followed word for word. Raises
    UserError for what is wrong, of a file with lines for all of them at once, each with its number.
    """
    items = _planned(request, warn)
    for settings in {item.settings.prompt: item.settings for item in items}.values():
        for remark in remarks_on_prompt(settings, request.model):
            warn(remark)
    if request.text_adapter is not None and all(item.settings.prompt is None for item in items):
        warn("warning: text_adapter has no effect without a prompt")
    return items


def _planned(request: Request, warn: Callable[[str], object]) -> list[Item]:
    path, suffix = request.input_path, request.input_path.suffix.lower()
    if request.recursive and not is_folder(path):
        raise UserError("recursive is for a folder: omit it, or give a folder as input_path")
    if is_folder(path):
        _check_apart(path, request)
        images = images_in(path, recursive=request.recursive, leave_out=request.output_folder, warn=warn)
        return _plain_items(images, path, request)
    if is_pattern(path):
        _check_apart(fixed_part(path), request)
        return _plain_items(images_like(path, leave_out=request.output_folder), fixed_part(path), request)
    if suffix == PATH_LIST:
        return _read_lines(request, lambda line: {"input_path": line}, warn)
    if suffix in JSON_LINES:
        return _read_lines(request, _read_object, warn)
    check_image_path(path)
    return _plain_items([path], path.parent, request)


def _check_apart(folder: Path, request: Request) -> None:
    """Clips among the images would be taken for images the next time."""
    output_folder = request.output_folder.resolve()
    might_be = request.recursive or {"webp", "gif"} & {*request.formats} or is_pattern(request.input_path)
    if might_be and folder.resolve().is_relative_to(output_folder):
        raise UserError(f"output_folder {request.output_folder} holds the images themselves: give another one")


def _plain_items(images: Iterable[Path], base: Path, request: Request) -> list[Item]:
    single = is_single(request)
    return [Item(path, _name_below(base, path), request.settings, single=single) for path in images]


def _read_lines(
    request: Request, read: Callable[[str], Mapping[str, Any]], warn: Callable[[str], object]
) -> list[Item]:
    path = request.input_path
    if path.exists() and not path.is_file():
        raise UserError(f"the list {path} is not a file: give a text file in UTF-8")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list {path} can't be read ({error}): give a text file in UTF-8") from error
    items: list[tuple[Item, Mapping[str, Any]]] = []
    complaints = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                _check_length(line)
                given = read(line.strip("\r"))
                items.append((_make_item(given, number, request), given))
            except UserError as error:
                complaints.append((number, str(error)))
    complaints += _repeated_names(items)
    if complaints:
        told = "".join(f"\n  line {number}: {_shortened(complaint)}" for number, complaint in sorted(complaints))
        raise UserError(f"{path} has mistakes, so nothing was made:{told}")
    if not items:
        raise UserError(f"the list {path} is empty: give a path or an object a line")
    _warn_of_ignored(request, items, warn)
    return [item for item, _ in items]


def _check_length(line: str) -> None:
    if len(line) > MAX_LINE:
        raise UserError(f"it has {len(line)} characters: give {MAX_LINE} at most")


def _read_object(line: str) -> Mapping[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, times in Counter(name for name, _ in pairs).items():
            if times > 1:
                raise UserError(f"{name!r} is given {times} times: omit all but one")
        return dict(pairs)

    try:
        values = json.loads(line, object_pairs_hook=once)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f'not JSON ({error}): give an object such as {{"input_path": "photo.png"}}') from error
    if not isinstance(values, dict):
        raise UserError(f'not an object: give one such as {{"input_path": "photo.png"}}, not {line}')
    return values


def _make_item(given: Mapping[str, Any], line: int, request: Request) -> Item:
    """The item of a line."""
    for name in given:
        if name not in OF_LINE:
            raise UserError(f"there is no parameter {name!r}{did_you_mean(name, OF_LINE)}")
    if "input_path" not in given:
        raise UserError("input_path is missing: every line needs one")
    values = {name: OF_LINE[name].read(name, value) for name, value in given.items()}
    folder = request.input_path.parent
    image_path = folder / values["input_path"]
    check_image_path(image_path)
    if "output_name" in values:
        name = values["output_name"]
        _check_output_name(name)
    else:
        name = _name_below(folder, image_path)
    of_sampling = {key: value for key, value in values.items() if key in OF_SAMPLING}
    settings = replace(request.sampling, **of_sampling).resolved_for(request.model)
    remarks_on_prompt(settings, request.model)
    item = Item(image_path, name, settings, line)
    item.folder(request.output_folder)
    return item


def _name_below(base: Path, path: Path) -> str:
    """An image's path below a folder without its suffix; its file's name alone where it lies elsewhere, or hidden.

    A name too long for a clip's files is cut.
    """
    folders: tuple[str, ...] = path.relative_to(base).parts[:-1] if path.is_relative_to(base) else ()
    if any(part.startswith(".") for part in folders):  # .. is among these
        folders = ()
    stem = path.stem.replace("\\", "_")
    while len(os.fsencode(stem)) > MAX_PART_BYTES:
        stem = stem[:-1]
    check_name(stem)
    return "/".join((*folders, stem))


def _check_output_name(name: str) -> None:
    parts = name.split("/")
    try:
        if any(part in ("", ".", "..") for part in parts):
            raise ValueError("no part of it may be empty, . or ..")
        if any(part.startswith(".") for part in parts):
            raise ValueError("a leading dot hides files")
        if not name.isprintable():
            raise ValueError("it holds a character that can't be printed")
        if any(len(part.encode()) > MAX_PART_BYTES for part in parts) or len(name.encode()) > MAX_NAME_BYTES:
            raise ValueError(f"it may take {MAX_NAME_BYTES} bytes, each part of it {MAX_PART_BYTES}")
        for part in parts:
            check_name(part)
    except ValueError as error:
        raise UserError(
            f"output_name can't be {name!r} ({error}): give a name such as photo or shots/photo, which"
            " stays inside the output folder"
        ) from error


def _repeated_names(items: list[tuple[Item, Mapping[str, Any]]]) -> Iterator[tuple[int, str]]:
    """Complaints of names that two lines give; names that follow from images may repeat, and get numbers."""
    lines = defaultdict(list)
    for item, given in items:
        if "output_name" in given and item.line is not None:
            lines[item.name].append(item.line)
    for name, (first, *others) in lines.items():
        for line in others:
            yield line, f"output_name {name!r} is that of line {first} already: give each clip its own"


def _warn_of_ignored(
    request: Request, items: Iterable[tuple[Item, Mapping[str, Any]]], warn: Callable[[str], object]
) -> None:
    for name, reason in ignored_parameters(request.model).items():
        lines = [item.line for item, given in items if name in given]
        if lines:
            shown = ", ".join(map(str, lines[:5])) + (", ..." if len(lines) > 5 else "")
            warn(f"warning: {request.version} ignores {name} (of line {shown}): {reason}")


def _shortened(text: str) -> str:
    told = text.encode(errors="backslashreplace").decode()  # JSON can hold halves of characters
    return told if len(told) <= LONGEST_COMPLAINT else told[: LONGEST_COMPLAINT - 4] + " ..."
