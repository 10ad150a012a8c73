"""What the README says of versions, folders and Python is so, and it stays short."""

from pathlib import Path

import pytest

from sgm.config import RELEASES, load_config
from tests.pages import PAGES, PROJECT, blocks, code_names, name_of, tables, text_of

README = text_of("README.md")


def test_is_short() -> None:
    assert len(README.split()) <= 1500


def test_first_command_installs_and_makes_a_clip() -> None:
    first, second = blocks(README, "bash")[:2]
    assert first == (
        "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt -c tests/constraints.txt"
        " && .venv/bin/python sample.py --version svd_tiny\n"
    )
    assert second == "bash tests/check\n"


def test_versions_are_described_as_they_are() -> None:
    (rows,) = tables("README.md", "Versions and licences")
    described = {code_names(row[0])[0]: row for row in rows}
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
            assert f"]({release.page})" in README


def test_map_holds_every_folder() -> None:
    (rows,) = tables("README.md", "Where things are")
    mapped = [code_names(row[0])[0] for row in rows]
    assert README.rstrip().endswith(" |".join(rows[-1][-1:]) + " |"), "the README ends with the map"
    packages = [f"sgm/{path.parent.name}/" for path in PROJECT.glob("sgm/*/__init__.py")]
    assert sorted(name for name in mapped if name.startswith("sgm/")) == sorted(packages)
    assert [name for name in mapped if not (PROJECT / name).is_dir()] == []


def test_every_page_of_the_documentation_is_linked() -> None:
    pages = [name_of(page) for page in PAGES if page.is_relative_to(PROJECT / "docs")]
    assert [page for page in pages if f"]({page})" not in README] == []


def test_python_example_makes_a_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "assets").symlink_to(PROJECT / "assets")
    monkeypatch.chdir(tmp_path)
    (example,) = blocks(README, "python")
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out == "(14, 192, 320, 3)\n"
    assert (tmp_path / "clip.mp4").read_bytes()[4:8] == b"ftyp"
