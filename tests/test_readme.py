"""What the README says of parameters, versions, commands and files is so."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from sgm.config import RELEASES, load_config
from sgm.parameters.presets import PRESETS
from sgm.parameters.sample_command import SAMPLE
from sgm.runtime.memory import MEMORY_MODES, tensor_bytes

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a heading, without its two head lines."""
    section = README.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def code_names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def examples() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("python sample.py")]


def test_every_parameter_is_explained_once() -> None:
    named = [name for row in rows("Parameters") for name in code_names(row[0])]
    assert sorted(named) == sorted(SAMPLE.parameters)


@pytest.mark.parametrize("row", rows("Parameters"), ids=lambda row: row[0])
def test_ranges_are_those_that_are_checked(row: list[str]) -> None:
    parameter = SAMPLE.parameters[code_names(row[0])[0]]
    if parameter.high is not None and parameter.high < 2**53:
        assert str(parameter.high) in row[2]


def test_versions_are_described_as_they_are() -> None:
    described = {code_names(row[0])[0]: row for row in rows("Versions")}
    assert described.keys() == RELEASES.keys()
    for version, (_, frames, steps, size, weights, _) in described.items():
        config, release = load_config(version), RELEASES[version]
        assert (int(frames), int(steps), size) == (
            config.num_frames,
            config.num_steps,
            f"{config.width}x{config.height}",
        )
        if release.repository:
            assert code_names(weights) == [f"{version}.safetensors"]
            assert release.page in README


@pytest.mark.parametrize("example", examples())
def test_examples_are_understood(
    example: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgm.parameters.request.recorded_parameters", lambda path: {"input_path": "photo.png"})
    SAMPLE.read(shlex.split(example)[2:])
    assert capsys.readouterr().err == "", "an example that warns is no example"


def test_linked_and_mapped_files_are_there() -> None:
    links = re.findall(r"\]\(([^):]+)\)", README)
    mapped = [name for row in rows("How it is built") for name in code_names(row[0])]
    configs = re.findall(r"configs/[a-z0-9_/]+\.yaml", README)
    missing = [name for name in (*links, *mapped, *configs) if not (PROJECT / name).exists()]
    assert missing == []


def test_memory_is_what_is_counted() -> None:
    *described, with_fp8 = rows("Memory")
    assert [code_names(row[0])[0] for row in described] == list(MEMORY_MODES)
    for name, *_, svd, svd_xt, sv3d in [*described, with_fp8]:
        mode, fp8 = MEMORY_MODES[code_names(name)[0]], "fp8" in name
        for version, figure in {"svd": svd, "svd_xt": svd_xt, "sv3d_p": sv3d}.items():
            counted = tensor_bytes(mode, load_config(version), torch.device("cuda"), torch.float16, fp8=fp8)
            assert float(figure) == pytest.approx(counted / 1e9, rel=0.02), (name, version)


def test_presets_are_described_as_they_are() -> None:
    described = {code_names(row[0])[0]: row for row in rows("Speed")[:3]}
    assert described.keys() == PRESETS.keys()
    shallow = 13.1 / 153.9  # of a step's work, see tests/benchmark/test_arithmetic.py
    for name, (_, _, schedule, sampler, interval, work) in described.items():
        preset = PRESETS[name]
        assert (code_names(schedule)[0], code_names(sampler)[0]) == (preset.schedule, preset.sampler)
        assert int(interval) == preset.cache_interval
        share = preset.share_of_steps * (1 + (preset.cache_interval - 1) * shallow) / preset.cache_interval
        assert float(work.removesuffix(" %")) == pytest.approx(100 * share, abs=1)
