"""A hub that lies, stalls or never ends: a line each, nothing written but in the cache, the token sent nowhere else."""

import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint.forks import Forks
from tests.checkpoint.hub_server import COMMIT, Hub
from tests.checkpoint.test_hub import SECRET, Client, sha256

NAME = "svd.safetensors"
CONTENT = random.Random(2).randbytes(200_000)
QUICK = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
FEW_TRIES = "import sgm.checkpoint.fetching as fetching\nfetching._TRIES = 2\n"
NOT_THE_HUB, NO_SHA256 = "what answers is not the hub", "gives no SHA-256"
NO_WEIGHTS, UNREACHABLE = "has no weights for svd", "the hub can't be reached"

Lie = Callable[[dict[str, Any]], object]


@pytest.fixture
def client(tmp_path: Path, forks: Forks) -> Client:
    (tmp_path / "a" / "b").mkdir(parents=True)
    return Client(tmp_path / "a" / "b" / "home", forks)


def files_outside(client: Client) -> list[str]:
    """What was written beside the cache."""
    base = client.home.parent.parent.parent
    return [str(path) for path in base.rglob("*") if not path.is_dir() and client.home not in path.parents]


def entry(**changes: Any) -> Lie:
    """Changes what is said of the first file."""
    return lambda listing: listing["siblings"][0].update(changes)


def stored(**changes: Any) -> Lie:
    """Changes what is said of the first file's content."""
    return lambda listing: listing["siblings"][0]["lfs"].update(changes)


def whole(**changes: Any) -> Lie:
    return lambda listing: listing.update(changes)


LIES: dict[str, tuple[Lie, str]] = {
    "a digest that leaves the cache": (stored(sha256="../../../PWN"), NO_SHA256),
    "a digest that is a path": (stored(sha256="/tmp/PWN"), NO_SHA256),
    "a digest with a path": (stored(sha256=f"../{'a' * 61}"), NO_SHA256),
    "a digest in capitals": (stored(sha256="A" * 64), NO_SHA256),
    "a digest with a line": (stored(sha256="a" * 64 + "\n"), NO_SHA256),
    "digits of another script": (stored(sha256="\N{ARABIC-INDIC DIGIT ONE}" * 64), NO_SHA256),
    "a SHA-1 for a SHA-256": (stored(sha256="a" * 40), NO_SHA256),
    "a digest that is a number": (stored(sha256=int("1" * 64)), NO_SHA256),
    "no digest": (stored(sha256=None), NO_SHA256),
    "weights kept in git": (entry(lfs=None), NO_SHA256),
    "words for a content": (entry(lfs="words"), NO_SHA256),
    "no digest at all": (entry(lfs=None, blobId=None), NO_SHA256),
    "a commit that leaves the cache": (whole(sha="../../../../PWN"), NOT_THE_HUB),
    "a commit with a path": (whole(sha=f"../{'a' * 37}"), NOT_THE_HUB),
    "a commit with a line": (whole(sha="a" * 40 + "\n"), NOT_THE_HUB),
    "a commit that is a number": (whole(sha=int("1" * 40)), NOT_THE_HUB),
    "a list of commits": (whole(sha=[COMMIT]), NOT_THE_HUB),
    "no commit": (whole(sha=None), NOT_THE_HUB),
    "a name that is a number": (entry(rfilename=3), NOT_THE_HUB),
    "a name that is a list": (entry(rfilename=[NAME]), NOT_THE_HUB),
    "no name": (entry(rfilename=None), NOT_THE_HUB),
    "files that are names": (whole(siblings=[NAME]), NOT_THE_HUB),
    "files by name": (whole(siblings={NAME: {}}), NOT_THE_HUB),
    "no files": (whole(siblings=None), NOT_THE_HUB),
    "a name that leaves the repository": (entry(rfilename="../../../../PWN.safetensors"), NO_WEIGHTS),
    "a name from the root": (entry(rfilename="/tmp/PWN.safetensors"), NO_WEIGHTS),
    "a name of another system": (entry(rfilename="..\\..\\PWN.safetensors"), NO_WEIGHTS),
    "a name on another disk": (entry(rfilename="C:PWN.safetensors"), NO_WEIGHTS),
    "a hidden name": (entry(rfilename=".PWN.safetensors"), NO_WEIGHTS),
    "a name that steers a terminal": (entry(rfilename="\x1b[2JPWN.safetensors"), NO_WEIGHTS),
    "a name that is no Unicode": (entry(rfilename="\ud800.safetensors"), NO_WEIGHTS),
    "a name with a NUL": (entry(rfilename="a\0.safetensors"), NO_WEIGHTS),
    "an endless name": (entry(rfilename="a" * 300 + ".safetensors"), NO_WEIGHTS),
    "an empty name": (entry(rfilename=""), NO_WEIGHTS),
    "no size": (stored(size=None), NOT_THE_HUB),
    "a size that is a word": (stored(size="many"), NOT_THE_HUB),
    "a negative size": (stored(size=-1), NOT_THE_HUB),
    "a petabyte": (stored(size=10**15), "has more than 50 GB"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_told_and_nothing_is_fetched(client: Client, name: str) -> None:
    lie, told = LIES[name]
    with Hub(files={NAME: CONTENT}) as hub:
        listing = hub.listing()
        lie(listing)
        hub.told = json.dumps(listing).encode()
        assert told in client.fail(hub)
        assert hub.transfers() == []
        assert files_outside(client) == client.leftovers() == []
        hub.told = b""
        assert client.find(hub)["sha256"] == sha256(CONTENT)


ANSWERS = {
    "nested lists": b'{"sha": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "nested dicts": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "a number of 5,000 digits": b'{"sha": ' + b"1" * 5_000 + b"}",
    "no Unicode": b'{"sha": "\xff\xfe"}',
    "nothing": b" ",
    "eleven megabytes": json.dumps({"sha": COMMIT, "siblings": []}).encode() + b" " * 11_000_000,
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_no_description_is_told(client: Client, name: str) -> None:
    with Hub(files={NAME: CONTENT}) as hub:
        hub.told = ANSWERS[name]
        assert NOT_THE_HUB in client.fail(hub)
        hub.told = b""
        assert client.find(hub)["sha256"] == sha256(CONTENT)


def test_an_index_is_checked_too(client: Client) -> None:
    """Small files are announced by git's SHA-1."""
    part = "unet/diffusion_pytorch_model-00001-of-00001.safetensors"
    index = json.dumps({"weight_map": {"a": Path(part).name}}).encode()
    name = "unet/diffusion_pytorch_model.safetensors.index.json"
    others = {"vae/diffusion_pytorch_model.safetensors": b"v", "image_encoder/model.safetensors": b"i", part: b"u"}
    with Hub(files={name: index, **others}) as hub:
        hub.served_instead[name] = index.replace(b"a", b"b")
        assert "was damaged on the way" in client.fail(hub)
        hub.served_instead.clear()
        listing = hub.listing()
        listing["siblings"][0]["size"] = 11_000_000
        hub.told = json.dumps(listing).encode()
        assert "has more than 0.01 GB" in client.fail(hub)
        hub.told = b""
        assert len(client.find(hub)["sha256"]) == 3


LOCATIONS = [
    "http://[::1",
    "http://",
    "//",
    "http://a:99999999/",
    "http://a:b/",
    "http://\xe9\xff/",
    "http://xn--\xe9/",
    "http://" + "a" * 300 + "/",
    "http://a..b/",
    "file:///etc/passwd",
    "ftp://127.0.0.1/",
    "javascript:1",
    "http://127.0.0.1:9/",
    "http://127.0.0.1:0/",
    "",
]


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_redirect_to_nowhere_is_told(client: Client, location: str) -> None:
    with Hub(files={NAME: CONTENT}) as hub:
        hub.location = ("/api/", location)
        assert UNREACHABLE in client.fail(hub) or location == ""
        hub.location = ("/resolve/", location)
        assert UNREACHABLE in client.fail(hub, before=FEW_TRIES)
        assert files_outside(client) == []


@pytest.mark.parametrize("address", ["http://[::1", "nonsense", "http://a:99999999", "file:///etc/passwd"])
def test_an_endpoint_that_is_no_address_is_told(client: Client, address: str) -> None:
    for named in ("owner/name", ""):
        said = client.fail(address, named)
        assert UNREACHABLE in said or "HF_ENDPOINT is not an address" in said


def test_the_token_follows_no_redirect_to_another_host(client: Client) -> None:
    with Hub(files={NAME: CONTENT}) as other, Hub(files={NAME: CONTENT}) as hub:
        elsewhere = other.address.replace("127.0.0.1", "localhost")
        hub.location = ("/api/", f"{elsewhere}/api/models/owner/name/revision/main?blobs=true")
        assert client.find(hub, HF_TOKEN=SECRET)["sha256"] == sha256(CONTENT)
        assert len(other.requests) == 1
        assert other.tokens == {None}
        assert hub.tokens == {f"Bearer {SECRET}"}


@pytest.mark.parametrize("token", ["a\nb", "\N{LATIN SMALL LETTER E WITH ACUTE}", "a\x00"])
def test_a_token_that_is_none_is_not_shown(client: Client, token: str) -> None:
    client.home.mkdir()
    (client.home / "token").write_text(token + SECRET)
    with Hub(files={NAME: CONTENT}) as hub:
        client.ask(hub)  # sees to it


def test_silence_is_told(client: Client) -> None:
    with Hub(files={NAME: CONTENT}, silent=True) as hub:
        start = time.monotonic()
        assert f"{UNREACHABLE} (ReadTimeout)" in client.fail(hub, **QUICK)
        assert time.monotonic() - start < 30
        hub.silent = False
        found = client.find(hub)
        hub.silent = True
        assert client.find(hub, **QUICK) == found, "what is in the cache is enough"


def test_a_transfer_that_stalls_is_told_and_gone_on_with(client: Client) -> None:
    with Hub(files={NAME: CONTENT}, stall=[100_000, 0, 0]) as hub:
        assert f"{UNREACHABLE} (ReadTimeout)" in client.fail(hub, before=FEW_TRIES, **QUICK)
        assert client.find(hub)["sha256"] == sha256(CONTENT)
        assert [span for _, span in hub.transfers()] == [None, *["bytes=100000-"] * 3]


@pytest.mark.parametrize("what", ["the description", "the file"])
def test_what_drips_is_told(client: Client, what: str) -> None:
    """A byte each third of a second never lets a timeout pass."""
    with Hub(files={NAME: CONTENT}, drip=0.3) as dripping, Hub(files={NAME: CONTENT}) as hub:
        hub.storage = dripping.address
        asked = dripping if what == "the description" else hub
        assert f"{UNREACHABLE} (it sends next to nothing)" in client.fail(asked, before=FEW_TRIES, **QUICK)


def test_a_description_without_end_is_told(client: Client) -> None:
    with Hub(files={NAME: CONTENT}, endless=True) as hub:
        assert NOT_THE_HUB in client.fail(hub)


def test_a_file_without_end_is_cut(client: Client) -> None:
    with Hub(files={NAME: CONTENT}) as storage, Hub(files={NAME: CONTENT}) as hub:
        storage.endless = True
        hub.storage = storage.address
        assert "more comes of svd.safetensors than the 200,000 bytes" in client.fail(hub)
        assert sum(path.stat().st_size for path in client.home.rglob("*.incomplete")) == 0
        storage.endless = False
        assert client.find(hub)["sha256"] == sha256(CONTENT)


def test_packed_content_is_not_unpacked(client: Client) -> None:
    """The length of what comes packed tells nothing of the length that it unpacks to."""
    with Hub(files={NAME: CONTENT}, headers={"Content-Encoding": "gzip"}) as hub:
        assert client.find(hub)["sha256"] == sha256(CONTENT), "it was asked for plain, and is"


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_hub_that_asks_to_wait_is_not_obeyed(client: Client, status: int) -> None:
    waits = {"Retry-After": "99999", "RateLimit": '"api";r=0;t=99999'}
    with Hub(files={NAME: CONTENT}, status=status, headers=waits) as hub:
        start = time.monotonic()
        assert f"HTTP status {status}" in client.fail(hub)
        assert time.monotonic() - start < 30


def test_what_the_hub_says_is_not_shown(client: Client) -> None:
    told = {"X-HF-Warning": "odd; words of the hub", "X-Error-Message": "words of the hub"}
    with Hub(files={NAME: CONTENT}, status=404, headers=told) as hub:
        assert "words of the hub" not in client.ask(hub).stderr


def test_huggingface_hub_finds_what_was_fetched(client: Client) -> None:
    """The layout of the cache, by the library that it is shared with."""
    script = (
        "from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache\n"
        f"path = try_to_load_from_cache('owner/name', '{NAME}', revision='main')\n"
        f"import os\nassert os.path.getsize(path) == {len(CONTENT)}\n"
        "(repository,) = scan_cache_dir().repos\n(revision,) = repository.revisions\n"
        f"assert repository.repo_id == 'owner/name' and revision.commit_hash == '{COMMIT}'\n"
        "assert not scan_cache_dir().warnings and revision.refs == {'main'}\n"
        "assert snapshot_download('owner/name', local_files_only=True) == str(revision.snapshot_path)\n"
    )
    with Hub(files={NAME: CONTENT}) as hub:
        client.find(hub)
        client.find(hub, before=script)


def test_what_huggingface_hub_fetched_is_found(client: Client) -> None:
    folder = client.home / "hub" / "models--owner--name"
    for part in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (folder / part).mkdir(parents=True)
    (folder / "blobs" / sha256(CONTENT)).write_bytes(CONTENT)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT / NAME).symlink_to(f"../../blobs/{sha256(CONTENT)}")
    with Hub(files={NAME: CONTENT}) as hub:
        found = client.find(hub, download=False)
        assert found["sha256"] == sha256(CONTENT)
        assert client.find(hub) == found
        assert hub.transfers() == []


@pytest.mark.parametrize("reference", ["../../../x", "../" * 40, "a" * 40, "", "\0", f"../snapshots/{COMMIT}"])
def test_a_branch_in_the_cache_that_leads_elsewhere_leads_nowhere(client: Client, reference: str) -> None:
    with Hub(files={NAME: CONTENT}) as hub:
        found = client.find(hub)
        (client.home / "hub" / "models--owner--name" / "refs" / "main").write_text(reference)
        said = client.ask(hub, download=False)
        assert said.returncode == 2 or json.loads(said.stdout) == found
        assert re.search("add --download", said.stderr) or said.returncode == 0
        assert client.find(hub) == found
