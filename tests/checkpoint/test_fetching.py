"""A fetch that was stopped, however it was, is gone on with by the next; shown by what the server was asked for."""

import contextlib
import fcntl
import os
import pty
import random
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint.hub_server import COMMIT, Hub
from tests.checkpoint.test_hub import MIB, SECRET, Client, sha256
from tests.checkpoint.test_sampling import in_its_own_process, started_sampling

NAME = "svd.safetensors"
CONTENT = random.Random(1).randbytes(25 * MIB)
SHA256 = sha256(CONTENT)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path / "home")


def hub_with(content: bytes = CONTENT, **how: Any) -> Hub:
    return Hub(files={NAME: content}, **how)


def incomplete(client: Client) -> Path:
    """Where what is not whole yet is kept."""
    return client.home / "hub" / "models--owner--name" / "blobs" / f"{SHA256}.incomplete"


def keep(client: Client, kept: bytes) -> None:
    """As if an earlier run had left this."""
    incomplete(client).parent.mkdir(parents=True)
    incomplete(client).write_bytes(kept)


def starts(hub: Hub) -> list[int]:
    """From where each transfer was asked for."""
    return [int(span.strip("bytes=-")) if span else 0 for _, span in hub.transfers()]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_a_part(client: Client, size: int = 15 * MIB) -> None:
    wait_for(lambda: incomplete(client).exists() and incomplete(client).stat().st_size == size)


def first_line(process: subprocess.Popen[str]) -> str:
    """What a process says first on stderr."""
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line, f"it ended with {process.wait()} and {process.communicate()}"
    return line


def check_whole(client: Client, hub: Hub, **how: Any) -> None:
    """The file comes, equal to the byte, and nothing else is left of it."""
    path = Path(client.find(hub, **how)["path"])
    assert path.read_bytes() == CONTENT
    assert path.resolve().name == SHA256
    assert client.leftovers() == [SHA256]


def test_a_killed_process_is_gone_on_with(client: Client) -> None:
    with hub_with(stall=[15 * MIB, 8 * MIB]) as hub:
        for kept in (15 * MIB, 23 * MIB):
            process = client.start(hub)
            wait_for_a_part(client, kept)
            process.kill()
            process.communicate()
            assert incomplete(client).read_bytes() == CONTENT[:kept]
            assert "add --download" in client.fail(hub, download=False), "it is no checkpoint yet"
        check_whole(client, hub)
        assert starts(hub) == [0, 15 * MIB, 23 * MIB]


def test_ctrl_c_of_a_whole_run_is_gone_on_with(client: Client, tmp_path: Path) -> None:
    words = ("--checkpoint", "owner/name", "--version", "svd", "--download", "--output_folder", tmp_path / "out")
    with hub_with(stall=[15 * MIB]) as hub:
        process = started_sampling(*words, environment=client.environment(hub))
        wait_for_a_part(client)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 130
        assert "Traceback" not in said
        assert said.endswith("stopped by Ctrl-C; finished clips are kept\n")
        done = in_its_own_process(*words, environment=client.environment(hub))
        assert done.returncode == 2
        assert "is not a readable checkpoint" in done.stderr, "what came is no model, but it came"
        assert starts(hub) == [0, 15 * MIB]
        check_whole(client, hub)
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_network_that_fails_for_good_keeps_what_came(client: Client) -> None:
    with hub_with(cut=[15 * MIB, *[0] * 20]) as hub:
        assert "the hub can't be reached (RemoteProtocolError)" in client.fail(hub)
        assert starts(hub) == [0, *[15 * MIB] * 5]
        hub.cut.clear()
        hub.requests.clear()
        check_whole(client, hub)
        assert starts(hub) == [15 * MIB]


def test_resets_are_gone_on_after_within_a_run(client: Client) -> None:
    with hub_with(reset=[22 * MIB, 0, 0]) as hub:  # what is under way at a reset is lost
        check_whole(client, hub)
        first, *others = starts(hub)
        assert first == 0
        assert len(set(others)) == 1
        assert len(others) == 3
        assert MIB < others[0] <= 22 * MIB


def test_endless_resets_are_told(client: Client) -> None:
    with hub_with(reset=[0] * 50) as hub:
        assert "the hub can't be reached (ReadError)" in client.fail(hub)
        assert len(starts(hub)) == 5
        hub.reset.clear()
        check_whole(client, hub)


def test_a_server_without_ranges_sends_it_anew(client: Client) -> None:
    keep(client, CONTENT[: 10 * MIB])
    with hub_with(ranges=False) as hub:
        check_whole(client, hub)
        assert starts(hub) == [10 * MIB]


@pytest.mark.parametrize(
    ("kept", "asked"),
    [
        (CONTENT[:1], [1]),
        (CONTENT[:-1], [len(CONTENT) - 1]),
        (CONTENT, []),
        (CONTENT + b"more", [0]),
        (CONTENT[1 : 10 * MIB], [10 * MIB - 1, 0]),
        (CONTENT[::-1], [0]),
    ],
    ids=["a byte", "nearly all", "all", "more than all", "damaged", "all of it damaged"],
)
def test_only_what_is_missing_is_asked_for(client: Client, kept: bytes, asked: list[int]) -> None:
    keep(client, kept)
    with hub_with() as hub:
        check_whole(client, hub)
        assert starts(hub) == asked


@pytest.mark.parametrize("size", [[], -1, 1.5, True, "12", [12], float("nan"), 10**400], ids=lambda size: str(size)[:9])
def test_what_is_no_size_is_refused(client: Client, size: object) -> None:
    keep(client, CONTENT)
    with hub_with(size=size) as hub:
        said = client.fail(hub)
        assert "what answers is not the hub" in said or "has more than 50 GB" in said
        assert starts(hub) == []
        assert incomplete(client).read_bytes() == CONTENT


def test_what_is_damaged_and_comes_damaged_again_is_let_go(client: Client) -> None:
    keep(client, b"wrong" * 1000)
    with hub_with(served_instead={NAME: CONTENT[::-1]}) as hub:
        said = client.ask(hub)
        assert said.returncode == 2
        assert said.stderr.splitlines()[1:] == [
            f"what was kept of {NAME} is damaged: fetching it anew",
            f"error: {NAME} was damaged on the way (it is not what the hub announced): run the same again",
        ]
        assert starts(hub) == [5000, 0]
        assert client.leftovers() == []


def test_another_content_is_no_continuation(client: Client) -> None:
    keep(client, CONTENT[: 10 * MIB])
    changed = CONTENT[::-1]
    with hub_with(changed) as hub:
        assert client.find(hub)["sha256"] == sha256(changed)
        assert starts(hub) == [0]
        hub.files[NAME], hub.revisions["old"] = CONTENT, "d" * 40
        hub.requests.clear()
        assert client.find(hub, "owner/name@old")["sha256"] == SHA256
        assert starts(hub) == [10 * MIB], "it is kept for whoever asks for it"


@pytest.mark.parametrize("named", ["owner/name", f"owner/name@{COMMIT}"])
def test_what_is_damaged_in_the_cache_is_fetched_anew(client: Client, named: str) -> None:
    with hub_with() as hub:
        whole = client.find(hub, named)
        Path(whole["path"]).resolve().write_bytes(CONTENT[:-1])
        assert f"{NAME} is damaged in the cache: fetching it anew" in client.ask(hub, named).stderr
        assert client.find(hub, named) == whole
        assert starts(hub) == [0, 0]


def test_two_at_once_take_turns(client: Client) -> None:
    with hub_with(stall=[15 * MIB]) as hub:
        processes = [client.start(hub)]
        wait_for_a_part(client)
        processes.append(client.start(hub))
        assert first_line(processes[1]) == f"another process is fetching {NAME}: waiting for it\n"
        hub.release.set()
        for process in processes:
            said = process.communicate(timeout=120)
            assert process.returncode == 0, said
            assert SHA256 in said[0]
        assert starts(hub) == [0]


def test_the_place_of_one_that_was_killed_is_taken(client: Client) -> None:
    with hub_with(stall=[15 * MIB]) as hub:
        first = client.start(hub)
        wait_for_a_part(client)
        second = client.start(hub)
        assert "waiting" in first_line(second)
        first.kill()
        first.communicate()
        said = second.communicate(timeout=120)
        assert second.returncode == 0, said
        assert starts(hub) == [0, 15 * MIB]


def test_the_token_stays_with_the_hub(client: Client) -> None:
    keep(client, CONTENT[: 10 * MIB])
    with hub_with(cut=[12 * MIB]) as storage, hub_with(token=SECRET) as hub:
        hub.storage = storage.address.replace("127.0.0.1", "localhost")  # another host, as its name tells
        check_whole(client, hub, HF_TOKEN=SECRET)
        assert hub.tokens == {f"Bearer {SECRET}"}
        assert storage.tokens == {None}
        assert starts(storage) == starts(hub) == [10 * MIB, 22 * MIB], "each try asks the hub for the place anew"


def test_a_full_disk_keeps_what_came(client: Client) -> None:
    before = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({12 * MIB}, {12 * MIB}))\n"
    with hub_with() as hub:
        assert "can't be fetched ([Errno 27] File too large): run this again" in client.fail(hub, before=before)
        assert incomplete(client).read_bytes() == CONTENT[: 12 * MIB]
        check_whole(client, hub)
        assert starts(hub) == [0, 12 * MIB]


def test_a_disk_without_room_is_told_before(client: Client) -> None:
    keep(client, CONTENT[: 10 * MIB])
    before = "import shutil; shutil.disk_usage = lambda _: shutil._ntuple_diskusage(9, 9, {})\n"
    with hub_with() as hub:
        said = client.fail(hub, before=before.format(15 * MIB - 1))
        assert re.search(r"0\.0 GB of owner/name are to be fetched, and .*hub has room for 0\.0 GB", said)
        assert starts(hub) == []
        check_whole(client, hub, before=before.format(15 * MIB))
        hub.size = 60 * 10**9
        hub.files[NAME] = b"another"
        assert "has more than 50 GB" in client.fail(hub)


def test_a_cache_without_links_has_the_file_itself_once(client: Client) -> None:
    keep(client, CONTENT[: 10 * MIB])
    with hub_with() as hub:
        found = client.find(hub, HF_HUB_DISABLE_SYMLINKS="1")
        assert not Path(found["path"]).is_symlink()
        assert Path(found["path"]).read_bytes() == CONTENT
        assert client.leftovers() == []
        assert client.find(hub, HF_HUB_DISABLE_SYMLINKS="1") == found
        assert client.find(hub, HF_HUB_OFFLINE="1") == found
        assert starts(hub) == [10 * MIB]


def test_a_cache_that_cannot_be_written_to_will_do(client: Client) -> None:
    refuse = "def refuse(*_, **__):\n    raise OSError(30, 'Read-only file system')\n"
    before = f"import os\n{refuse}os.mkdir = os.symlink = os.rename = os.replace = refuse\n"
    with hub_with() as hub:
        found = client.find(hub)
        assert client.find(hub, before=before) == found
        Path(found["path"]).unlink()
        assert "Read-only file system" in client.fail(hub, before=before)


def test_progress_starts_where_it_goes_on(client: Client) -> None:
    keep(client, CONTENT[: 20 * MIB])
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    with hub_with() as hub:
        process = client.start(hub, stderr=theirs)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal that is closed at its other side
            while part := os.read(ours, 10_000):
                shown += part
        process.communicate(timeout=120)
    os.close(ours)
    assert process.returncode == 0, shown
    percents = [int(percent) for percent in re.findall(rb"svd\.safetensors: +(\d+)%", shown)]
    assert (percents[0], percents[-1]) == (80, 100)


def test_huggingface_hub_lists_what_is_unfinished(client: Client) -> None:
    """So that `hf cache prune` finds what nobody asks for any more."""
    keep(client, CONTENT[: 10 * MIB])
    command = [Path(sys.executable).with_name("hf"), "cache", "prune", "--yes"]
    subprocess.run(command, env=client.environment("http://127.0.0.1:9"), capture_output=True, check=True)
    assert client.leftovers() == []
