"""Runs Python programs, each in a process and an environment of its own, forked from one that has loaded the packages.

Of what looking for weights takes, most is importing; huggingface_hub alone reads the environment as it is imported, and
is imported anew by each. Started as a program it takes a line of JSON for each process, and answers with its exit code.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PROJECT = Path(__file__).parents[2]
SECONDS = 120  # that a process may take


class Forks:
    """The one that has loaded the packages; what the others say passes through files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.said = folder / "stdout", folder / "stderr"
        pipe = subprocess.PIPE
        command = [sys.executable, "-W", "error", "-m", "tests.checkpoint.forks", *self.said]
        self.process = subprocess.Popen(command, cwd=PROJECT, stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def run(self, script: str, *words: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """As by `python -W error -c script words` in the project's folder."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([script, words, dict(environment)]) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        return subprocess.CompletedProcess([script, *words], code, *(path.read_text() for path in self.said))


def load_packages() -> None:
    import huggingface_hub
    import huggingface_hub.file_download

    import sgm.checkpoint.finding  # noqa: F401

    assert huggingface_hub.get_session()
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        del sys.modules[name]


def become(script: str, words: list[str], environment: dict[str, str]) -> None:
    """Does in a process just forked what it is for, and ends it."""
    signal.alarm(SECONDS)
    for number, path in enumerate((os.devnull, *sys.argv[1:])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *words]
    exec(script, {"__name__": "__main__"})
    sys.exit()


if __name__ == "__main__":
    load_packages()
    for line in sys.stdin:
        if not (child := os.fork()):
            become(*json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
