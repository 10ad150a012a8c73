"""How far long work has come: a bar on stderr for each stage (loading, sampling, decoding, writing), up to 100 %."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def print_safely(text: str, stream: TextIO | None) -> None:
    """Text and a newline; characters that the stream can't encode are escaped, a closed or full one takes nothing."""
    if stream is None:  # as of a process that was started without one
        return
    encoding = stream.encoding or "utf-8"
    with suppress(OSError, ValueError):
        stream.write(text.encode(encoding, errors="backslashreplace").decode(encoding).rstrip("\n") + "\n")
        stream.flush()


class Progress:
    """Draws the bars on `stream`, stderr by default; draws nothing where that is no terminal, or where `quiet`."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False):
        self.stream = stream if stream is not None else sys.stderr
        self.quiet = quiet or not self.stream.isatty()

    @contextmanager
    def stage(self, name: str, total: int, unit: str = "it") -> Iterator[Callable[[int], object]]:
        """A bar from 0 to `total` units and a function that moves it on; work that ends without an error fills it.

        A stage within a stage has its bar below the other's and takes it away when it ends.
        """
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

    def track(self, name: str, items: Sequence[Item], unit: str = "it") -> Iterator[Item]:
        """The items one by one, under a bar that counts those which are done with."""
        with self.stage(name, len(items), unit) as advance:
            for item in items:
                yield item
                advance(1)

    def print(self, text: str) -> None:
        """One line of results on stdout, above any bar. What is no Unicode, as names of files may be, is escaped."""
        tqdm.write(text.encode(errors="backslashreplace").decode(), file=sys.stdout)
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """One line on the stream, terminal or not, above any bar."""
        tqdm.write(text, file=self.stream)
