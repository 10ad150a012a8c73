import os
import signal

import pytest

# Before torch is imported, here or by what a test starts: threads that wait busily are slow on cores that others use.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """A shell's background jobs ignore it, and so would the processes that tests start and stop by it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
