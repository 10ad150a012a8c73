"""What must not be disturbed: a lock that dies with its process, and deferring Ctrl-C while one is taken.

A lock, for programs that share a folder, is a file held with flock. The kernel releases it however the process ends, so
a lock never outlives its holder and needs no timeout. This works between processes on one machine, and between machines
if the shared file system supports flock, as Linux's NFS, Lustre mounted with `-o flock`, CephFS and GPFS do.
"""

import errno
import math
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

SECONDS_BEFORE_A_WORD = 2.0
SECONDS_OF_ONE_CTRL_C = 1.0


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock file inside the context: True, or False if another process holds it and `wait` is false.

    The file is created if needed and removed at the end. A wait of more than a moment is reported on stderr. Raises
    OSError if the file can't be created or locked, or if something else, such as a link, is in its place.
    """
    descriptor = _acquire(path, wait)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        with suppress(OSError):  # a shared folder may fail briefly; a leftover lock file goes to the next holder
            path.unlink()  # still held: whoever opened it meanwhile notices in _acquire
        os.close(descriptor)


def take_quick_ctrl_c_as_one() -> None:
    """From now on a Ctrl-C within a second of the last one is ignored: impatience must not cut off the cleaning up.

    For the main thread of a program; a later Ctrl-C interrupts again. Where Ctrl-C is ignored, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    last = -math.inf

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last > SECONDS_OF_ONE_CTRL_C:
            last = time.monotonic()
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside the context Ctrl-C waits for the end; one that comes more than a second later doesn't. For short work.

    Only the main thread is ever interrupted; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    waiting: list[tuple[float, FrameType | None]] = []

    def wait(number: int, frame: FrameType | None) -> None:
        if not waiting:
            waiting.append((time.monotonic(), frame))
        elif time.monotonic() - waiting[0][0] > SECONDS_OF_ONE_CTRL_C and callable(handler):
            handler(number, frame)

    handler = signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if waiting and callable(handler):
            handler(signal.SIGINT, waiting[0][1])


def _acquire(path: Path, wait: bool) -> int | None:
    import fcntl  # Unix only

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "Not a regular file", str(path))
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    os.close(descriptor)
                    return None
                with _mentioned_after_a_while(path):
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder removed it between our opening and locking it: the lock protects nothing


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def _mentioned_after_a_while(path: Path) -> Iterator[None]:
    timer = threading.Timer(SECONDS_BEFORE_A_WORD, _say_that_it_waits, [path])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _say_that_it_waits(path: Path) -> None:
    if sys.stderr is not None:
        with suppress(OSError):  # a closed pipe must not end the work
            sys.stderr.write(f"waiting for the process that holds {str(path)!r}; if that is suspended, end it\n")
