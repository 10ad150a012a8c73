"""What must not be disturbed: a lock that dies with its process, and Ctrl-C that waits while one is taken.

A lock, for programs that share a folder, is a file that is held with flock. The kernel lets go of it however the
process ends, so a lock never outlives its holder and needs no time limit. This holds between processes of one machine,
and between machines where the shared file system passes flock on: NFS of Linux, Lustre mounted with `-o flock`, CephFS
and GPFS do.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock file inside: True, or False where another process holds it and `wait` is false.

    The file is made where it isn't there and removed at the end. Raises OSError where it can't be made or locked.
    """
    descriptor = _acquire(path, wait)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        with suppress(OSError):  # a shared folder may fail for a moment; a lock file that stays is the next holder's
            path.unlink()  # still held: who opened it meanwhile finds out in _acquire
        os.close(descriptor)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within it a first Ctrl-C waits for the end, a second one doesn't. For work of a moment.

    Only the main thread is ever interrupted; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    waiting: list[FrameType | None] = []

    def wait(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, handler)
        waiting.append(frame)

    handler = signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if waiting and callable(handler):
            handler(signal.SIGINT, waiting[0])


def _acquire(path: Path, wait: bool) -> int | None:
    import fcntl  # Unix has it

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder removed it between our opening and locking it: that lock guards no name


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
