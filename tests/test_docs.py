"""What the pages say of commands, parameters, figures and each other is so."""

import ast
import importlib
import json
import math
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from safetensors import safe_open

from sgm import __version__
from sgm.benchmark import __main__ as benchmark
from sgm.checkpoint import __main__ as checkpoint
from sgm.config import RELEASES, load_config
from sgm.diffusion.edm import clips_a_step
from sgm.evaluation import __main__ as evaluation
from sgm.parameters.__main__ import parameters_page
from sgm.parameters.presets import PRESETS
from sgm.parameters.sample_command import SAMPLE
from sgm.runtime.devices import MEMORY_MODES, tensor_bytes
from sgm.runtime.frame_sharing import shares
from sgm.training import __main__ as training
from tests.pages import (
    PAGES,
    PROJECT,
    anchors,
    blocks,
    code_names,
    code_spans,
    name_of,
    python_commands,
    tables,
    text_of,
)

PARSERS: dict[str, Callable[[list[str]], object]] = {
    "sgm": SAMPLE.read,
    "sgm.benchmark": benchmark.COMMAND.read,
    "sgm.evaluation": lambda words: (
        evaluation.INTERPOLATION.read(words[1:]) if words[0] == "interpolation" else evaluation.COMMAND.read(words)
    ),
    "sgm.training": training.COMMAND.read,
    "sgm.checkpoint": lambda words: checkpoint.COMMANDS[words[0]][0].read(words[1:]),
}
OTHER_COMMANDS = (
    benchmark.COMMAND,
    evaluation.COMMAND,
    evaluation.INTERPOLATION,
    training.COMMAND,
    *(command for command, _ in checkpoint.COMMANDS.values()),
)
OTHERS_FLAGS = {"--head", "--address", "--requeue", "--array", "--gres"}  # of ray and Slurm
COMMANDS = [(name_of(page), words) for page in PAGES for words in python_commands(page.read_text(encoding="utf-8"))]


def by_page(values: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", values, ids=name_of)


def test_parameters_page_is_the_generated_one() -> None:
    assert text_of("docs/parameters.md") == parameters_page(), "run python -m sgm.parameters > docs/parameters.md"


def test_every_parameter_is_on_its_page_with_its_range() -> None:
    page = text_of("docs/parameters.md")
    for name, (parameter, _) in SAMPLE.parameters.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        missing = [limit for limit in (parameter.low, parameter.high) if limit is not None and str(limit) not in row]
        assert missing == []
        assert all(f"`{choice}`" in row for choice in parameter.choices)


@by_page(PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    broken = []
    for link in (link for link in links if "://" not in link):
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[f"{page}: {' '.join(words)}" for page, words in COMMANDS])
def test_commands_are_understood(
    page: str, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sgm.parameters.request.recorded_parameters", lambda path, given=(): {"input_path": "photo.png"}
    )
    monkeypatch.chdir(PROJECT)
    command, *words = words[1:] if words[0] == "-m" else words
    if command == "sample.py":
        command = "sgm"
    assert find_spec(command) is not None
    if command in PARSERS and words and not {"--help", "VERSION", "FILE"} & {*words}:
        PARSERS[command](words)
    assert capsys.readouterr().err == "", "an example that warns is no example"


@by_page(PAGES)
def test_flags_within_sentences_are_known(page: Path) -> None:
    """Every `--name` is a parameter, and a value that follows it is one that the parameter takes."""
    known = {name: it for command in (*OTHER_COMMANDS, SAMPLE) for name, (it, _) in command.parameters.items()}
    for span in code_spans(page.read_text(encoding="utf-8")):
        if span.startswith("--") and span != "--help":
            flag, _, value = span.removeprefix("--").partition(" ")
            if flag != "name":  # as in `--name value`
                assert flag in known, span
                assert not value or known[flag].read(flag, value.strip('"')) is not None
        flags = re.findall(r"(?<!\S)--[a-z0-9_]+", span)
        unknown = {flag for flag in flags if flag[2:] not in known} - OTHERS_FLAGS - {"--help", "--name"}
        assert not unknown or span.startswith(("pip ", "git "))


@by_page([page for page in PAGES if page.name != "CHANGELOG.md"])  # which names what was there once
def test_files_of_the_project_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"\b(?:configs|sgm|tests)/[a-z0-9_/]+\.(?:yaml|py|txt)", text)
    modules = re.findall(r"\bsgm(?:\.[a-z_]+)+\b(?!/)", text)
    assert [name for name in named if not (PROJECT / name).exists()] == []
    roots = {".".join(name.split(".")[:2]) for name in modules}
    assert [name for name in roots if find_spec(name) is None] == []


@by_page(PAGES)
def test_what_python_examples_import_is_there(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []


def test_changelog_tells_of_this_version() -> None:
    releases = re.findall(r"^## \[([^\]]+)\]", text_of("CHANGELOG.md"), re.MULTILINE)
    assert releases[0] == "Unreleased"
    assert __version__ in releases


def test_memory_is_what_is_counted() -> None:
    *described, with_fp8 = tables("docs/speed_and_memory.md", "Memory modes")[0]
    assert [code_names(row[0])[0] for row in described] == list(MEMORY_MODES)
    for name, *_, svd, svd_xt, sv3d in [*described, with_fp8]:
        mode, fp8 = MEMORY_MODES[code_names(name)[0]], "fp8" in name
        for version, figure in {"svd": svd, "svd_xt": svd_xt, "sv3d_p": sv3d}.items():
            counted = tensor_bytes(mode, load_config(version), torch.device("cuda"), torch.float16, fp8=fp8)
            assert float(figure) == pytest.approx(counted / 1e9, rel=0.02), (name, version)


def test_predictions_for_several_cards_are_counted() -> None:
    for name, frames, *predictions in tables("docs/several_cards.md", "How much faster")[0]:
        config = load_config(code_names(name)[0])
        assert int(frames) == config.num_frames
        halves = clips_a_step(config.guidance)
        for cards, prediction in zip((2, 4, 8), predictions, strict=True):
            most = max(shares(config.num_frames, cards // halves))
            assert float(prediction) == pytest.approx(halves * config.num_frames / most, abs=0.005)


def test_presets_are_described_as_they_are() -> None:
    (rows,) = tables("docs/speed_and_memory.md", "Presets")
    described = {code_names(row[0])[0]: row for row in rows}
    assert described.keys() == PRESETS.keys()
    shallow = 13.1 / 153.9  # of a step's work, see tests/benchmark/test_arithmetic.py
    for name, (_, _, schedule, sampler, interval, work) in described.items():
        preset = PRESETS[name]
        assert (code_names(schedule)[0], code_names(sampler)[0]) == (preset.schedule, preset.sampler)
        assert int(interval) == preset.cache_interval
        share = preset.share_of_steps * (1 + (preset.cache_interval - 1) * shallow) / preset.cache_interval
        assert float(work.removesuffix(" %")) == pytest.approx(100 * share, abs=1)


def test_losses_are_those_that_were_measured() -> None:
    svd, sv3d = (
        json.loads(text_of(f"docs/benchmarks/{version}-losses.json"))["scores"] for version in ("svd_tiny", "sv3d_tiny")
    )
    (rows,) = tables("docs/speed_and_memory.md", "What each loses")
    described = {code_names(row[0])[0].removeprefix("--"): row[1:] for row in rows}
    exact = described.pop("preset exact")
    assert exact == ["", _first_frame(svd["exact"]), "", _truth(sv3d["exact"])]
    assert described.keys() == svd.keys() - {"exact", "exact, guided"}
    for name, cells in described.items():
        of_svd, of_sv3d = svd[name], sv3d[name]
        assert cells == [_near(of_svd), _first_frame(of_svd), _near(of_sv3d), _truth(of_sv3d)]


def _near(scores: dict[str, float]) -> str:
    return f"{scores['psnr_to_exact_db']:.1f} dB, {scores['ssim_to_exact']:.2f}"


def _first_frame(scores: dict[str, float]) -> str:
    return f"{scores['first_frame_psnr_db']:.1f} dB"


def _truth(scores: dict[str, float]) -> str:
    return f"{scores['psnr_db']:.1f} dB, {100 * scores['views_right']:.0f} %"


def test_ratios_to_diffusers_are_those_that_were_measured() -> None:
    (rows,) = tables("docs/speed_and_memory.md", "Benchmark")
    for row, name in zip(rows, ("svd_tiny-cpu", "svd-64-cpu"), strict=True):
        (rival,) = json.loads(text_of(f"docs/benchmarks/{name}.json"))["rivals"]
        assert row[1] == f"{rival['step_ratio']:.2f} times as long"
        assert row[2] == f"{rival['clip_ratio']:.2f} times as long"


def test_time_of_a_small_clip_is_the_measured_one() -> None:
    (result,) = json.loads(text_of("docs/benchmarks/svd_tiny-cpu.json"))["results"]
    assert f"measured at {result['seconds']['whole clip']:.1f} s per clip" in text_of("README.md")


@pytest.mark.parametrize("version", [version for version, release in RELEASES.items() if not release.repository])
def test_weights_of_the_small_models_are_counted(version: str) -> None:
    with safe_open(PROJECT / "checkpoints" / f"{version}.safetensors", "pt") as file:
        count = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    assert f"`configs/{version}.yaml`: {count / 1e6:.1f} million weights, counted" in text_of("docs/small_models.md")
