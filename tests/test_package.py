"""The package as others get it: a wheel, built and installed as pip does, and used far from the project's folder."""

import os
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

import sgm

PROJECT = Path(__file__).parent.parent
SMALL = ["--num_frames", "2", "--num_steps", "1", "--width", "32", "--height", "32", "--device", "cpu"]


def pip(*words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, PROJECT)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed wheel and nothing else; the packages that it needs are this environment's."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder


@pytest.fixture
def python(installed: Path, tmp_path: Path):
    """A function that runs Python with the installed wheel, in a folder and a home of its own."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        folders = {"PYTHONPATH": str(installed), "HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hub")}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")} | folders
        command = [sys.executable, "-W", "error", *words]
        (tmp_path / "here").mkdir(exist_ok=True)
        return subprocess.run(
            command, cwd=tmp_path / "here", env=environment, capture_output=True, text=True, check=False
        )

    return run


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def requirements_of(file: str) -> set[str]:
    lines = (line.partition("#")[0].strip() for line in (PROJECT / file).read_text().splitlines())
    return {normal(line) for line in lines if line}


def normal(requirement: str) -> str:
    """A requirement with its name, marks and version parts in one order and spelling, as the metadata rewrites them."""
    name, marks = re.fullmatch(r"([\w.\-\[\]]+)(.*)", requirement.replace(" ", "")).groups()
    return name.lower().replace("_", "-") + ",".join(sorted(marks.split(",")))


def test_the_wheel_needs_what_requirements_txt_names(wheel: Path) -> None:
    needed = [text.partition(";") for text in metadata_of(wheel).get_all("Requires-Dist")]
    always = {normal(text) for text, _, condition in needed if not condition}
    of_ray = {normal(text) for text, _, condition in needed if condition.replace("'", '"').strip() == 'extra == "ray"'}
    assert always == requirements_of("requirements.txt")
    assert of_ray == requirements_of("requirements-ray.txt")
    assert len(needed) == len(always) + len(of_ray)


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    metadata = metadata_of(wheel)
    assert (metadata["Name"], metadata["Version"]) == ("sgm", sgm.__version__)
    assert (metadata["License-Expression"], metadata["Requires-Python"]) == ("MIT", ">=3.10")


def test_the_wheel_holds_the_program_and_what_comes_with_it_and_no_more(wheel: Path) -> None:
    """Weights that a user put into checkpoints/ are many GB, and not ours to give on."""
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    bundled = {f"sgm/bundled/{path}" for path in ("assets/test_image.png", "assets/object.png", "assets/README.md")}
    for folder, pattern in {"configs": "**/*.yaml", "checkpoints": "*_tiny.safetensors"}.items():
        bundled |= {f"sgm/bundled/{path.relative_to(PROJECT).as_posix()}" for path in (PROJECT / folder).glob(pattern)}
    sources = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "sgm").rglob("*.py")} | {"sgm/py.typed"}
    assert {name for name in held if ".dist-info/" not in name} == bundled | sources
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)


def test_an_installed_sgm_makes_a_clip_as_the_checkout_does(python, tmp_path: Path) -> None:
    made = python("-m", "sgm", "--version", "svd_tiny", *SMALL)
    assert made.returncode == 0, made.stderr
    here = tmp_path / "here" / "outputs" / "svd_tiny"
    command = [sys.executable, "-W", "error", PROJECT / "sample.py", "--version", "svd_tiny", *SMALL]
    subprocess.run([*command, "--output_folder", tmp_path / "checkout"], cwd=tmp_path, check=True, capture_output=True)
    frames = [(folder / "test_image" / "0001.jpg").read_bytes() for folder in (here, tmp_path / "checkout")]
    assert frames[0] == frames[1]
    assert (here / "test_image.mp4").stat().st_size > 0


def test_an_installed_sgm_is_used_from_python(python, installed: Path) -> None:
    script = (
        "import sgm; from sgm import load; from sgm.storage.files import example_folder\n"
        "from PIL import Image\n"
        "clip = load('sv3d_tiny', device='cpu')(Image.open(example_folder() / 'object.png'),"
        " num_frames=2, num_steps=1)\n"
        "print(sgm.__file__, clip.frames.shape)"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{installed / 'sgm' / '__init__.py'} (2, 64, 64, 3)\n"


def test_the_help_of_an_installed_sgm_names_what_is_there(python) -> None:
    told = python("-m", "sgm", "--help").stdout
    assert "usage: python -m sgm [INPUT_PATH]" in told
    assert "sample.py" not in told


def test_weights_for_an_installed_sgm_go_into_the_users_own_folder(python, tmp_path: Path) -> None:
    refused = python("-m", "sgm", "--version", "svd_xt")
    own = re.search(r"put svd_xt\.safetensors into ([^,]+),", refused.stderr)
    assert refused.returncode == 2
    assert own is not None, refused.stderr
    folder = Path(own[1])
    assert tmp_path / "home" in folder.parents
    folder.mkdir(parents=True)
    (folder / "svd_xt.safetensors").touch()
    found = python("-c", "from sgm.checkpoint.finding import find_checkpoint; print(find_checkpoint('svd_xt').path)")
    assert found.stdout == f"{folder / 'svd_xt.safetensors'}\n", found.stderr


def test_trainings_are_found_by_name(python) -> None:
    script = (
        "from pathlib import Path; from sgm.training.config import find_training_config, load_training_config\n"
        "print(load_training_config(find_training_config(Path('temporal_decoder'))).part)"
    )
    assert python("-c", script).stdout == "temporal_decoder\n"
