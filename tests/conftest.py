import os
import signal

import pytest

# Before torch is imported, here or by what a test starts: threads that wait busily are slow on cores that others use.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # several tests at a time, each on a core of its own
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """A shell's background jobs ignore it, and so would the processes that tests start and stop by it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
