import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """A shell's background jobs ignore it, and so would the processes that tests start and stop by it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
