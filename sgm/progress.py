"""How far long work has come: a bar for each stage in a terminal, else a line a minute. Printing never ends work."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

SECONDS_OF_SILENCE = 60.0


class Progress:
    """Bars of stages (loading, sampling, decoding, writing) on `stream`, stderr by default, and lines above them.

    Where the stream is no terminal a minute without a line is followed by one that says how far the stage has come and
    how long it will take, so that nobody wonders whether the work still goes on. With `quiet` there are neither.
    """

    def __init__(
        self, stream: TextIO | None = None, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ):
        self.stream = stream if stream is not None else sys.stderr
        self.quiet = quiet
        self._results = sys.stdout
        self._clock = clock
        self._last_line = clock()

    @contextmanager
    def stage(self, name: str, total: int, unit: str = "it") -> Iterator[Callable[[int], object]]:
        """A stage of `total` units and a function that moves it on; work that ends without an error fills its bar.

        A stage within a stage has its bar below the other's, and removes it when it ends.
        """
        with self._bar(name, total, unit) if is_terminal(self.stream) else self._lines(name, total) as advance:
            yield advance

    def track(self, name: str, items: Sequence[Item], unit: str = "it") -> Iterator[Item]:
        """The items one by one, in a stage that counts those which are done with."""
        with self.stage(name, len(items), unit) as advance:
            for item in items:
                yield item
                advance(1)

    def print(self, text: str) -> None:
        """A line of results on what stdout was at the start, above any bar."""
        self._write(self._results, text)

    def say(self, text: str) -> None:
        """A line on the stream, terminal or not, above any bar."""
        self._write(self.stream, text)

    def _write(self, stream: TextIO | None, text: str) -> None:
        with tqdm.external_write_mode(file=stream):
            print_safely(text, stream)
        self._last_line = self._clock()

    @contextmanager
    def _bar(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], object]]:
        size = shutil.get_terminal_size()  # 80x24 where the terminal doesn't know its own, for which tqdm draws nothing
        with tqdm(
            desc=name,
            total=total,
            unit=unit,
            file=self.stream,
            disable=self.quiet,
            leave=None,
            ncols=size.columns,
            nrows=size.lines,
        ) as bar:
            yield bar.update
            bar.update(total - bar.n)

    @contextmanager
    def _lines(self, name: str, total: int) -> Iterator[Callable[[int], object]]:
        start, done = self._clock(), 0

        def advance(units: int) -> None:
            nonlocal done
            done += units
            now = self._clock()
            if not self.quiet and done < total and now - max(start, self._last_line) >= SECONDS_OF_SILENCE:
                left = tqdm.format_interval((now - start) / done * (total - done))
                self.say(f"{name}: {done} of {total}, {left} left")

        yield advance


def print_safely(text: str, stream: TextIO | None) -> None:
    """Text and a newline, at once. What reads or holds the output never ends the work that the text is about.

    Characters that the stream's encoding lacks are escaped. A stream that takes nothing any more (closed, a pipe
    without a reader, a full disk) loses this text and all that comes later.
    """
    if stream is None:  # as of a process that was started without one
        return
    encoding, line = stream.encoding or "utf-8", text.rstrip("\n") + "\n"
    try:
        stream.write(line.encode(encoding, errors="backslashreplace").decode(encoding))
        stream.flush()
    except OSError:
        # Else Python would try once more to write it as it ends, and fail.
        with suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123  # a device
            os.dup2(nowhere.fileno(), stream.fileno())
    except ValueError:
        assert stream.closed


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody watches the stream, so that lines on it can be drawn over."""
    return stream is not None and not stream.closed and stream.isatty()


def open_standard_streams() -> None:
    """Give a process that was started without some of stdin, stdout and stderr (`2>&-`) ones that lead nowhere.

    Else the next file that it opens would have the number of such a stream, and what libraries print would go there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if not _is_open(number):
            taken = os.open(os.devnull, os.O_RDWR)
            assert taken == number, "files get the lowest free number"
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115  # to the end


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
