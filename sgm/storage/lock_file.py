"""A lock that dies with its process, for programs that share a folder: a file that is held with flock.

The kernel lets go of it however the process ends, so a lock never outlives its holder and needs no time limit. This
holds between processes of one machine, and between machines where the shared file system passes flock on: NFS of Linux,
Lustre mounted with `-o flock`, CephFS and GPFS do.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
