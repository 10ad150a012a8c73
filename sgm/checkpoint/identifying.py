"""Which version a checkpoint is, by its keys and shapes: they are compared with those of every version."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

from ..config import RELEASES, load_config
from ..models.video_model import VideoModel, empty_model
from .files import weight_files
from .loading import OPTIONAL_PARTS, Comparison, compare, held_by, is_beside_the_model, layout_of, open_weights
from .weights import Weights

PRECISIONS = {"F16": "fp16", "BF16": "bf16", "F32": "fp32", "F64": "fp64"}
MAX_NAMED = 20


def compare_with_all(path: Path, weights: Weights) -> dict[str, Comparison]:
    """How a checkpoint differs from each version, the nearest versions first."""
    differences = {version: _compare_with(version, path, weights) for version in RELEASES}
    return dict(sorted(differences.items(), key=lambda item: item[1].count))


def fitting_versions(path: Path, weights: Weights) -> list[str]:
    """The versions that a checkpoint may be of: several, where they have one structure."""
    return [version for version, difference in compare_with_all(path, weights).items() if not difference]


def describe(path: Path) -> tuple[str, bool]:
    """What a file or folder is, in lines for people; and whether it fits any version. Raises UserError as reading does.

    They give its layout, size and precision, the versions that it fits, and how it differs from the nearest one.
    """
    weights = open_weights(path)
    size = sum(file.stat().st_size for file in weight_files(path))
    counts = Counter(PRECISIONS.get(dtype, dtype) for dtype in weights.dtypes.values())
    precision = ", ".join(f"{count} in {name}" for name, count in counts.most_common())
    layout = "diffusers folder" if path.is_dir() else "single file"
    lines = [f"{path}: {layout}, {_readable(size)}, {len(weights.shapes)} tensors: {precision}"]
    differences = compare_with_all(path, weights)
    fitting = [version for version, difference in differences.items() if not difference]
    nearest = next(iter(differences))
    if fitting:
        lines.append(f"version: {' or '.join(fitting)}")
        if len(fitting) > 1:
            lines.append("  (these have the same structure; only its name can tell which it is)")
        lines += _remarks(path, weights, _model(nearest))
    else:
        lines.append(f"version: none; the nearest is {nearest}, from which {differences[nearest].count} keys differ")
        for kind, keys in vars(differences[nearest]).items():
            lines += [f"{kind}: {len(keys)}"] * bool(keys) + [f"  {key}" for key in keys[:MAX_NAMED]]
            lines += [f"  ... and {len(keys) - MAX_NAMED} more"] * (len(keys) > MAX_NAMED)
    return "\n".join(lines) + "\n", bool(fitting)


def _compare_with(version: str, path: Path, weights: Weights) -> Comparison:
    model = _model(version)
    return compare(weights, layout_of(path, model), model)


@cache
def _model(version: str) -> VideoModel:
    return empty_model(load_config(version))


def _remarks(path: Path, weights: Weights, model: VideoModel) -> list[str]:
    """What the checkpoint holds beside the model, and what it may hold and doesn't."""
    layout = layout_of(path, model)
    unused = sum(map(is_beside_the_model, weights.shapes))
    held = held_by(weights.shapes, layout)
    absent = [part for part in OPTIONAL_PARTS if any(name.startswith(part) for name in layout.keys() - held.keys())]
    return [f"beside it: {unused} tensors that images don't need"] * bool(unused) + [
        f"without: {part.removesuffix('.')}, which sampling doesn't use" for part in absent
    ]


def _readable(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"
