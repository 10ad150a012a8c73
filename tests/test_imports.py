"""Imports go one way, and importing the package costs next to nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SGM = Path(__file__).parent.parent / "sgm"

# What each part may import of sgm, beside itself. A part is a folder or a module of the package.
MAY_IMPORT = {
    "__init__": set(),
    "errors": set(),
    "progress": {"errors"},
    "stages": {"errors"},
    "storage": {"errors"},
    "config": {"errors"},
    "inputs": {"errors"},
    "outputs": {"errors", "__init__", "stages", "storage"},
    "diffusion": {"errors", "config"},
    "models": {"errors", "config"},
    "checkpoint": {"errors", "config", "models", "diffusion", "storage"},
    "parameters": {"errors", "config", "inputs", "outputs"},
    "denoiser": {"errors", "config", "diffusion", "models"},
}


def part_of(module: Path) -> str:
    return module.relative_to(SGM).parts[0].removesuffix(".py")


def imported_parts(module: Path, source: str) -> set[str]:
    """The parts of sgm that a module of this source imports, wherever in it."""
    package = ("sgm", *module.relative_to(SGM).parts[:-1])
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = [*package[: len(package) - node.level + 1]] if node.level else []
            origin += node.module.split(".") if node.module else []
            names.update(".".join([*origin, alias.name]) for alias in node.names)
    parts = set()
    for name in names:
        root, _, rest = name.partition(".")
        if root == "sgm":
            part = rest.split(".")[0]
            is_part = (SGM / part).is_dir() or (SGM / f"{part}.py").is_file()
            parts.add(part if part and is_part else "__init__")
    return parts


MODULES = sorted(SGM.rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(SGM)))
def test_imports_go_one_way(module: Path) -> None:
    part = part_of(module)
    imported = imported_parts(module, module.read_text())
    assert part == "batch" or "batch" not in imported, "one clip knows nothing of many"
    if part in MAY_IMPORT and module.name != "__main__.py":  # a command stands above its part
        assert imported <= MAY_IMPORT[part] | {part}
    elif part == "training":
        assert "evaluation" not in imported
    elif part not in ("evaluation", "benchmark"):  # the benchmark scores what it makes
        assert not imported & {"training", "evaluation"}


WRITTEN = {
    "from ..config import load_config": {"config"},
    "from .. import __version__": {"__init__"},
    "from ..models import unet": {"models"},
    "from . import image": {"inputs"},
    "import sgm.generation.pipeline": {"pipeline"},
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


@pytest.mark.parametrize("part", ["inputs", "outputs"])
def test_inputs_and_outputs_load_nothing_heavy(part: str) -> None:
    modules = [f"sgm.{part}.{path.stem}" for path in (SGM / part).glob("[a-z]*.py")]
    assert modules
    assert not loaded_after(f"import {', '.join(modules)}") & HEAVY


def test_a_request_is_checked_before_anything_heavy_is_loaded() -> None:
    assert not loaded_after("from sgm.parameters.request import Request; Request(version='svd')") & HEAVY
