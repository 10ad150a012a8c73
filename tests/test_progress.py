import contextlib
import io
import os
import re

import pytest

from sgm.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_reach_100_percent_and_tell_the_rate():
    terminal = Terminal()
    progress = Progress(terminal)
    assert list(progress.track("sampling", ["a", "b", "c"])) == ["a", "b", "c"]
    with progress.stage("decoding", total=5, unit="frame") as advance:
        advance(2)
    shown = terminal.getvalue()
    assert re.search(r"sampling: 100%.* 3/3 .*it/s", shown)
    assert re.search(r"decoding: 100%.* 5/5 .*frame/s", shown)


def test_work_that_fails_does_not_look_finished():
    terminal = Terminal()

    def fail() -> None:
        with Progress(terminal).stage("decoding", total=5) as advance:
            advance(2)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert "100%" not in terminal.getvalue()
    assert "2/5" in terminal.getvalue()


@pytest.mark.parametrize(
    "make", [lambda: (stream := io.StringIO(), Progress(stream)), lambda: (t := Terminal(), Progress(t, quiet=True))]
)
def test_silent_without_a_terminal_or_when_quiet_but_for_what_is_said(make):
    stream, progress = make()
    assert list(progress.track("sampling", range(3))) == [0, 1, 2]
    with progress.stage("decoding", total=5) as advance:
        advance(2)
    assert stream.getvalue() == ""
    progress.say("a line")
    assert stream.getvalue() == "a line\n"


def test_bars_show_in_a_terminal_that_does_not_know_its_size(monkeypatch):
    pty = pytest.importorskip("pty", reason="pseudo-terminals are not for Windows")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        list(Progress().track("sampling", range(3)))
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal that is closed at its other side
        while part := os.read(ours, 10_000):
            shown += part
    os.close(ours)
    assert b"100%" in shown
