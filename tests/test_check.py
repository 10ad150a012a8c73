"""The one command that checks everything: it stops when it is told to, and leaves other people's scripts alone."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parent.parent
# Stands for the environment's Python: every step is over at once, but for one that runs another program. That of pytest
# takes no notice of Ctrl-C, as when it falls into a program that a test runs.
STEPS = """#!/usr/bin/env bash
[ "$2" = "$STEP" ] || exit 0
[ "$2" != pytest ] || trap '' INT
sleep 300 &
echo $! > running
wait
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with tests/check and steps that do nothing."""
    (tmp_path / "tests").mkdir()
    shutil.copy(PROJECT / "tests" / "check", tmp_path / "tests")
    (tmp_path / "tests" / "install").touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STEPS)
    python.chmod(0o755)
    return tmp_path


@contextmanager
def checking(project: Path, step: str) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """tests/check at work on a step, in a terminal of its own: its process, the terminal, and the step's program."""
    terminal, its_side = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "bash", "tests/check"],
        cwd=project,
        stdin=its_side,
        stdout=its_side,
        stderr=its_side,
        env=os.environ | {"STEP": step},
    )
    os.close(its_side)
    try:
        running = project / "running"
        while not (running.is_file() and running.read_text().endswith("\n")):
            assert process.poll() is None, os.read(terminal, 10_000)
            time.sleep(0.02)
        yield process, terminal, int(running.read_text())
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.mark.parametrize(
    ("step", "end"), [("ruff", "Ctrl-C"), ("mypy", "twice Ctrl-C"), ("mypy", signal.SIGTERM), ("pytest", "Ctrl-C")]
)
def test_it_stops_when_told_to_and_leaves_nothing_running(project: Path, step: str, end: str | signal.Signals) -> None:
    with checking(project, step) as (process, terminal, program):
        assert is_running(program)
        if isinstance(end, signal.Signals):
            process.send_signal(end)
        else:
            for _ in range(2 if end.startswith("twice") else 1):
                os.write(terminal, b"\x03")
        assert process.wait(timeout=60) == (143 if end == signal.SIGTERM else 130)
        deadline = time.monotonic() + 20  # on a busy machine a killed process takes a while to go
        while is_running(program):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_step_that_fails_is_the_last(project: Path) -> None:
    python = project / ".venv" / "bin" / "python"
    python.write_text('#!/usr/bin/env bash\necho "$2"\n[ "$2" != mypy ] || exit 7\n')
    done = subprocess.run(["bash", "tests/check"], cwd=project, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (7, ["ruff", "ruff", "mypy"])


def test_scripts_of_ones_own_in_the_folder_are_not_checked(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    for folder in ("", "sgm", "sgm/models", "tests", "docs", "outputs", "my_tools"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "bad.py").write_text("import os,sys\n")
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    blamed = {line.partition(":")[0] for line in done.stdout.splitlines() if ".py:" in line}
    assert blamed == {"sgm/bad.py", "sgm/models/bad.py", "tests/bad.py"}


def test_a_commit_is_checked_as_everything_is() -> None:
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = [hook["entry"].replace(".venv/bin/python", 'run "$python"') for hook in hooks]
    steps = (PROJECT / "tests" / "check").read_text().splitlines()[-len(entries) - 1 : -1]
    assert entries == steps
