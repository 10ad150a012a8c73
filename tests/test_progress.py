import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sgm.progress import Progress, print_safely

PROJECT = Path(__file__).parents[1]


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
def test_short_work_is_silent_without_a_terminal_or_when_quiet_but_for_what_is_said(make):
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


# ---- without a terminal


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watched():
    """A clock, a stream that is no terminal, and the progress of work that takes its time by the one on the other."""
    clock, stream = Clock(), io.StringIO()
    return clock, stream, Progress(stream, clock=clock)


def test_long_work_says_once_a_minute_how_far_it_is(watched):
    clock, stream, progress = watched
    for _ in progress.track("sampling", range(25)):
        clock.now += 20
    lines = stream.getvalue().splitlines()
    assert lines[0] == "sampling: 3 of 25, 07:20 left"
    assert [line.split(",")[0] for line in lines] == [f"sampling: {done} of 25" for done in range(3, 25, 3)]


def test_a_stage_within_another_counts_as_its_line(watched):
    clock, stream, progress = watched
    for _ in progress.track("clips", range(3)):
        clock.now += 1
        for _ in progress.track("sampling", range(10)):
            clock.now += 7
    assert stream.getvalue().splitlines() == [
        "sampling: 9 of 10, 00:07 left",
        "sampling: 9 of 10, 00:07 left",
        "sampling: 9 of 10, 00:07 left",
    ]


def test_stages_of_less_than_a_minute_leave_the_line_to_the_one_around_them(watched):
    clock, stream, progress = watched
    for _ in progress.track("clips", range(6)):
        for _ in progress.track("sampling", range(10)):
            clock.now += 4
    assert stream.getvalue().splitlines() == ["clips: 2 of 6, 02:40 left", "clips: 4 of 6, 01:20 left"]


def test_any_other_line_begins_the_minute_anew(capsys):
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, clock=clock)
    for number in progress.track("clips", range(20)):
        clock.now += 40
        (progress.say if number % 2 else progress.print)(f"clip {number}")
    assert "left" not in stream.getvalue()
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_a_quiet_one_stays_silent_for_hours():
    clock, stream = Clock(), io.StringIO()
    for _ in Progress(stream, quiet=True, clock=clock).track("sampling", range(10)):
        clock.now += 3600
    assert stream.getvalue() == ""


# ---- printing never ends work


def after_printing(redirection: str) -> tuple[int, str]:
    """Exit code and errors of a process, run by a shell, that prints a thousand lines on each stream, then is done."""
    script = (
        "from sgm.progress import Progress, open_standard_streams; open_standard_streams(); progress = Progress()\n"
        "for number in progress.track('work', range(1000)):\n"
        r"    progress.print(f'\u5317\u4eac {number}'); progress.say(f'\udcff\u5317 {number}')"
        "\nimport os; os.write(int(os.environ['DONE']), b'done')"
    )
    reader, writer = os.pipe()
    try:
        process = subprocess.run(
            ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {redirection}', sys.executable, script],
            env=os.environ | {"PYTHONPATH": str(PROJECT), "DONE": str(writer)},
            pass_fds=[writer],
            capture_output=True,
            text=True,
            check=False,
        )
        os.close(writer)
        assert os.read(reader, 10) == b"done", "the work went on to its end"
    finally:
        os.close(reader)
    return process.returncode, process.stderr


@pytest.mark.skipif(os.name == "nt", reason="a shell's redirections")
@pytest.mark.parametrize(
    "redirection",
    ["| head -1", "2>&1 | head -1", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"]
    + ["> /dev/full", "2> /dev/full", "> /dev/full 2> /dev/full"] * (sys.platform == "linux"),
)
def test_streams_that_take_nothing_never_end_the_work(redirection):
    exit_code, said = after_printing(redirection)
    assert exit_code == 0
    assert "Error" not in said
    assert "Exception" not in said


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8", "utf-16"])
def test_characters_that_a_stream_lacks_are_escaped(encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_safely("a\u5317\udcff\u00e9", stream)
    shown = stream.buffer.getvalue().decode(encoding)
    expected = {"ascii": "a\\u5317\\udcff\\xe9", "cp1252": "a\\u5317\\udcff\u00e9"}
    assert shown == expected.get(encoding, "a\u5317\\udcff\u00e9") + "\n"


def test_a_stream_closed_meanwhile_loses_its_lines():
    stream = io.StringIO()
    progress = Progress(stream)
    stream.close()
    progress.say("lost")
    print_safely("lost, for the process was started with it closed", None)
    assert list(progress.track("sampling", range(3))) == [0, 1, 2]


def test_files_never_take_the_number_of_a_stream_that_is_closed(tmp_path):
    script = "import sys; from sgm.progress import open_standard_streams; open_standard_streams()\n"
    script += "file = open(sys.argv[1], 'w'); import os; os.write(2, b'from a library')"
    command = ["bash", "-c", '"$0" -c "$1" "$2" 2>&-', sys.executable, script, str(tmp_path / "clip")]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(PROJECT)}, check=True)
    assert (tmp_path / "clip").read_bytes() == b""
