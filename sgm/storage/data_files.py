"""YAML files from any source, read as frozen dataclasses: data only, of bounded size, every value checked.

The text is checked before it is parsed into a tree, since deep nesting and repeated references could exhaust memory or
crash the parser. Nothing in it is looked up or run: there are no references, tags or interpolated variables.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from ..errors import UserError

MAX_BYTES = 2**16
MAX_DEPTH = 8
MAX_LENGTH = 200  # of a name or value in characters
MAX_ITEMS = 8  # of a list: levels of a network, scalars
MAX_BASES = 8


@dataclass(frozen=True)
class Bounds:
    """The range of a number, with both ends, as in the dataclass field `layers: Annotated[int, Bounds(1, 8)]`."""

    low: float
    high: float


def read_dataclass(kind: Any, path: Path, **values: Any) -> Any:
    """A YAML file as the frozen dataclass `kind`; `values` are fields that the file does not hold.

    A file may name a `base`: another file in its folder, without the suffix, whose values it overrides key by key.
    Raises UserError for a file that can't be read, an unknown or missing key, and a value of the wrong kind or out of
    bounds.
    """
    return _build(kind, _read_with_base(path, seen=()) | values, where=path.name)


def as_dataclass(kind: Any, values: Any, where: str) -> Any:
    """A mapping from elsewhere as the frozen dataclass `kind`; UserError, as above, says `where` it is wrong."""
    return _build(kind, values, where)


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    from omegaconf import OmegaConf

    if path in seen:
        raise UserError(f"{path} is its own base; a configuration's bases must end at a file without one")
    if len(seen) >= MAX_BASES:
        raise UserError(f"{seen[0]} has a chain of more than {MAX_BASES} bases")
    values = _read_mapping(path)
    if "base" not in values:
        return values
    base = values.pop("base")
    siblings = sorted(file.stem for file in path.parent.glob("*.yaml"))
    if base not in siblings:
        there = _shown(", ".join(siblings), str)
        raise UserError(f"{path} is based on {_shown(base)}, which is not in its folder: there are {there}")
    parent = _read_with_base(path.with_name(f"{base}.yaml"), (*seen, path))
    merged: Any = OmegaConf.to_container(OmegaConf.merge(parent, values), resolve=False)
    return dict(merged)


def _read_mapping(path: Path) -> dict[str, Any]:
    """The mapping of names to plain values that a file holds; raises UserError."""
    from io import StringIO

    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        if not path.is_file():
            raise UserError(f"there is no configuration file {_shown(path, str)}")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{path} is larger than a configuration may be ({MAX_BYTES} bytes)")
        text = content.decode("utf-8")
        _check_structure(text, path)
        loaded: Any = OmegaConf.load(StringIO(text))
        values = OmegaConf.to_container(loaded, resolve=False)
    except UserError:
        raise
    except (
        YAMLError,
        OmegaConfBaseException,
        OSError,
        ValueError,
    ) as error:  # ValueError: invalid UTF-8 or an odd number
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} can't be read as YAML: {_shown(reason, str)}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold a mapping of names to values")
    _check_names(values, path)
    return {str(name): value for name, value in values.items()}


def _check_structure(text: str, path: Path) -> None:
    """Raises UserError for what no configuration needs, event by event: the parser holds only the open levels."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, (yaml.AliasEvent, yaml.NodeEvent)) and event.anchor is not None:
            raise UserError(f"{path} has an anchor or alias ({_shown(event.anchor)}): write the values out")
        if getattr(event, "tag", None) is not None:
            raise UserError(f"{path} has a tag ({_shown(event.tag)}): write plain names, numbers and lists")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > MAX_LENGTH:
                raise UserError(f"{path} has a name or value of more than {MAX_LENGTH} characters")
            if "${" in event.value:
                raise UserError(f"{path} has {_shown(event.value)}: a configuration has no variables, only values")
        if depth > MAX_DEPTH:
            raise UserError(f"{path} is nested more than {MAX_DEPTH} levels deep")


def _check_names(value: Any, path: Path) -> None:
    if isinstance(value, list):
        for item in value:
            _check_names(item, path)
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise UserError(f"{path} has the key {_shown(name)}, which must be a name")
            _check_names(item, path)


def _build(kind: Any, value: Any, where: str) -> Any:
    """The value as `kind`: a dataclass, a tuple of one kind, a literal, or a plain number, string or truth value."""
    if hasattr(kind, "__dataclass_fields__"):
        return _build_dataclass(kind, value, where)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where}: expected a list, got {_shown(value)}")
        if len(value) > MAX_ITEMS:
            raise UserError(f"{where}: expected at most {MAX_ITEMS} items, got {len(value)}")
        return tuple(_build(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UserError(f"{where}: {_shown(value)} is not one of {', '.join(map(str, get_args(kind)))}")
        return value
    if get_origin(kind) is Annotated:
        plain, bounds = get_args(kind)
        number = _build(plain, value, where)
        if not bounds.low <= number <= bounds.high:
            raise UserError(f"{where}: {_shown(number)} is not from {bounds.low} to {bounds.high}")
        return number
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UserError(f"{where}: expected {kind.__name__}, got {_shown(value)}")
    return value


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a mapping, got {_shown(value)}")
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in fields(kind)]
    if unknown := sorted(set(value) - set(names)):
        raise UserError(f"{where}: unknown key {_shown(unknown[0])}; allowed are {', '.join(names)}")
    needed = [field.name for field in fields(kind) if field.default is MISSING]
    if missing := [name for name in needed if name not in value]:
        raise UserError(f"{where}: the key {missing[0]!r} is missing")
    return kind(**{name: _build(hints[name], value[name], f"{where}: {name}") for name in names if name in value})


def _shown(value: Any, to_text: Any = repr) -> str:
    """A value in a message, shortened if it is long."""
    text = str(to_text(value))
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}..."
