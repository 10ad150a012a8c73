"""Imports go one way, and importing the package costs next to nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SGM = Path(__file__).parent.parent / "sgm"

# Who may import whom, floor by floor: each part of sgm (a folder, or a module at its root) with the parts that it may
# import beside itself. All of them stand on lower floors, so there are no circles.
EVERYBODY = {"errors"}
CLIP = {"config", "parameters", "inputs", "outputs", "storage", "stages", "progress", "__init__"}
MAY_IMPORT = {
    "__init__": set(),  # what holds the version; its door to `load` is tested below
    "errors": set(),
    "progress": set(),
    "stages": set(),
    "storage": set(),
    "config": {"storage"},
    "inputs": {"storage"},
    "outputs": {"__init__", "stages", "storage"},
    "metrics": {"storage"},
    "parameters": {"__init__", "config", "inputs", "outputs", "progress", "storage"},
    "diffusion": {"config"},
    "models": {"config", "inputs"},
    "data": {"config", "inputs"},
    "checkpoint": {"config", "diffusion", "models", "parameters", "progress", "storage"},
    "runtime": {"config", "models"},
    "enhance": {"models", "runtime"},
    "watermark": {"outputs", "parameters", "progress"},
    "generation": CLIP | {"checkpoint", "diffusion", "enhance", "models", "runtime", "watermark"},
    "batch": CLIP | {"checkpoint", "generation", "runtime"},
    "__main__": CLIP | {"batch", "checkpoint", "generation"},
    "training": {"checkpoint", "config", "data", "diffusion", "generation", "models", "parameters", "progress"}
    | {"runtime", "storage"},
    "evaluation": CLIP | {"checkpoint", "data", "enhance", "generation", "metrics", "runtime"},
    "benchmark": CLIP | {"checkpoint", "diffusion", "generation", "metrics", "models", "runtime"},
}
COMMAND_LINE = {"parameters.command_line", "parameters.sample_command"}  # what only commands may import
REQUESTS = {"parameters.request"}  # what one run of sample.py asks for


def part_of(name: str) -> str:
    """The part that a module, named from the package on, belongs to; "" is the package itself."""
    part = name.partition(".")[0]
    is_part = (SGM / part).is_dir() or (SGM / f"{part}.py").is_file()
    return part if part and is_part else "__init__"


def imported_names(module: Path, source: str) -> set[str]:
    """What a module of this source imports from sgm, wherever in it, named from the package on."""
    package = ("sgm", *module.relative_to(SGM).parts[:-1])
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = [*package[: len(package) - node.level + 1]] if node.level else []
            origin += node.module.split(".") if node.module else []
            names.update(".".join([*origin, alias.name]) for alias in node.names)
    return {name.partition(".")[2] for name in names if name.partition(".")[0] == "sgm"}


def imported_parts(module: Path, source: str) -> set[str]:
    """The parts of sgm that a module of this source imports."""
    return {part_of(name) for name in imported_names(module, source)}


MODULES = sorted(SGM.rglob("*.py"))


def test_every_part_has_its_place() -> None:
    assert {part_of(".".join(module.relative_to(SGM).with_suffix("").parts)) for module in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(SGM)))
def test_imports_go_one_way(module: Path) -> None:
    names = imported_names(module, module.read_text())
    if module == SGM / "__init__.py":
        assert names == {"generation.pipeline.load"}, "loaded when it is asked for"
        return
    part = part_of(".".join(module.relative_to(SGM).with_suffix("").parts))
    assert {part_of(name) for name in names} <= MAY_IMPORT[part] | EVERYBODY | {part}
    is_command = module.name == "__main__.py" or part == "parameters"
    if not is_command:
        assert not {name for name in names if name.startswith(tuple(COMMAND_LINE))}
    if part in ("training", "generation", "checkpoint"):
        assert not {name for name in names if name.startswith(tuple(REQUESTS))}


def test_the_table_has_no_circles() -> None:
    remaining = dict(MAY_IMPORT)
    while remaining:
        lowest = [
            part for part, below in remaining.items() if not (below | EVERYBODY - {part}) & (remaining.keys() - {part})
        ]
        assert lowest, f"these import each other: {sorted(remaining)}"
        for part in lowest:
            del remaining[part]


WRITTEN = {
    "from ..config import load_config": {"config"},
    "from .. import __version__": {"__init__"},
    "from ..models import unet": {"models"},
    "from . import image": {"inputs"},
    "import sgm.generation.pipeline": {"generation"},
    "from sgm import checkpoint": {"checkpoint"},
    "def f():\n    from sgm.training.loop import train": {"training"},
    "import torch": set(),
}


@pytest.mark.parametrize("source", WRITTEN)
def test_imports_are_found_however_they_are_written(source: str) -> None:
    assert imported_parts(SGM / "inputs" / "imagined.py", source) == WRITTEN[source]


def loaded_after(statement: str) -> set[str]:
    """The names of all modules that are loaded after the statement, in a Python of its own."""
    script = f"import sys\n{statement}\nprint(*sys.modules)"
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=SGM.parent, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {
    "torch",
    "huggingface_hub",
    "cv2",
    "rembg",
    "onnxruntime",
    "skimage",
    "matplotlib",
    "scipy",
    "imageio",
    "open_clip",
    "ray",
}


def test_importing_sgm_loads_nothing_else() -> None:
    assert {name for name in loaded_after("import sgm") if name.startswith("sgm")} == {"sgm"}
    assert "sgm.generation.pipeline" in loaded_after("from sgm import load")


@pytest.mark.parametrize("part", ["inputs", "outputs", "watermark"])
def test_what_knows_no_model_loads_nothing_heavy(part: str) -> None:
    modules = [f"sgm.{part}.{path.stem}" for path in (SGM / part).glob("[a-z]*.py")]
    assert modules
    assert not loaded_after(f"import {', '.join(modules)}") & HEAVY


def test_a_request_is_checked_before_anything_heavy_is_loaded() -> None:
    assert not loaded_after("from sgm.parameters.request import Request; Request(version='svd')") & HEAVY
