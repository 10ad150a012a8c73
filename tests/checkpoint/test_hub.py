"""Repositories of huggingface.co, against a real HTTP server that speaks its protocol, good days and bad."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sgm.checkpoint.files import COMPONENTS
from sgm.checkpoint.hub import needed_files
from sgm.checkpoint.repository import Repository, read_address
from tests.checkpoint.forks import Forks
from tests.checkpoint.hub_server import COMMIT, Hub

PROJECT = Path(__file__).parent.parent.parent
MIB = 2**20
CONTENT = random.Random(0).randbytes(3_000_000)
SECRET = "hf_a_token_that_nobody_may_see"
OTHERS = {"README.md": b"words", "svd_xt.safetensors": b"x" * 10, "unet/config.json": b"{}"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", Repository("owner/name")),
        ("stabilityai/sv3d@main", Repository("stabilityai/sv3d")),
        ("a/b.c-d@v1.0", Repository("a/b.c-d", "v1.0")),
        ("a/b@refs/pr/3", Repository("a/b", "refs/pr/3")),
        (f"a/b@{COMMIT}", Repository("a/b", COMMIT)),
        ("a/b.safetensors", None),
        ("a/b.ckpt", None),
        ("name", None),
        ("a/b/c", None),
        ("../b", None),
        ("/owner/name", None),
        ("a/b@../../x", None),
        ("a/b@", None),
        ("a/b c", None),
        ("a/b--c", None),
        ("\u00e4/b", None),
    ],
)
def test_addresses(text: str, expected: Repository | None) -> None:
    assert read_address(text) == expected


def folder_files(variant: str = "") -> list[str]:
    return [f"{component}/{stem}{variant}.safetensors" for component, stem in COMPONENTS.items()]


SHARDS = [f"unet/diffusion_pytorch_model-0000{part}-of-00002.safetensors" for part in (1, 2)]


@pytest.mark.parametrize(
    ("names", "needed"),
    [
        (["svd.safetensors", "svd_xt.safetensors", *folder_files()], ["svd.safetensors"]),
        (["model_index.json", *folder_files(), *folder_files(".fp16"), "unet/config.json"], folder_files()),
        (["other.ckpt", *folder_files(".fp16")], folder_files(".fp16")),
        (["finetuned.safetensors", "README.md", "lora/x.safetensors"], ["finetuned.safetensors"]),
        (["FINETUNED.SAFETENSORS"], ["FINETUNED.SAFETENSORS"]),
        (["one.safetensors", "two.safetensors"], []),
        (folder_files()[:2], []),
        (
            ["unet/diffusion_pytorch_model.safetensors.index.json", *SHARDS, *folder_files()[1:]],
            ["unet/diffusion_pytorch_model.safetensors.index.json", *SHARDS, *folder_files()[1:]],
        ),
        ([], []),
    ],
)
def test_only_what_is_needed_is_asked_for(names: list[str], needed: list[str]) -> None:
    assert needed_files(names, "svd") == needed


SCRIPT = """
import json, sys
from sgm.checkpoint.finding import find_checkpoint
from sgm.errors import UserError
version, named, download = sys.argv[1:]
try:
    print(json.dumps(find_checkpoint(version, named or None, download=bool(download)).describe()))
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
assert "torch" not in sys.modules
"""


class Client:
    """Looks for weights in a Python of its own, with a cache of its own."""

    def __init__(self, home: Path, forks: Forks):
        self.home = home
        self.forks = forks

    def environment(self, hub: Hub | str, **variables: str) -> dict[str, str]:
        address = hub if isinstance(hub, str) else hub.address
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        patient = {"HF_HUB_DOWNLOAD_TIMEOUT": "100"}  # so that a busy machine changes nothing
        return kept | {"HF_HOME": str(self.home), "HF_ENDPOINT": address, "NO_PROXY": "*"} | patient | variables

    def start(self, hub: Hub, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """A process that looks, which can be stopped."""
        words = [sys.executable, "-W", "error", "-c", SCRIPT, "svd", "owner/name", "yes"]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, cwd=PROJECT, env=self.environment(hub), stdout=pipe, stderr=stderr, text=True)

    def ask(
        self,
        hub: Hub | str,
        named: str = "owner/name",
        *,
        version: str = "svd",
        download: bool = True,
        before: str = "",
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        """What a process says that looks, and its exit code; `before` is done first in it."""
        words = version, named, "yes" if download else ""
        environment = self.environment(hub, **variables)
        done = self.forks.run(before + SCRIPT, *words, environment=environment)
        assert "Traceback" not in done.stderr, done.stderr
        assert SECRET not in done.stdout + done.stderr
        return done

    def find(self, hub: Hub | str, named: str = "owner/name", **how: Any) -> dict[str, Any]:
        done = self.ask(hub, named, **how)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def fail(self, hub: Hub | str, named: str = "owner/name", **how: Any) -> str:
        done = self.ask(hub, named, **how)
        assert done.returncode == 2, done.stdout
        last = done.stderr.splitlines()[-1]
        assert last.startswith("error: ")
        return last

    def leftovers(self) -> list[str]:
        """The weights in the cache, whole or not."""
        return sorted(path.name for path in self.home.rglob("blobs/*"))


@pytest.fixture
def client(tmp_path: Path, forks: Forks) -> Client:
    return Client(tmp_path / "home", forks)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_fetched_once_and_then_used_offline(client: Client) -> None:
    with Hub(files=OTHERS | {"svd.safetensors": CONTENT}) as hub:
        found = client.find(hub)
        assert Path(found["path"]).read_bytes() == CONTENT
        assert found["sha256"] == sha256(CONTENT)
        assert (found["repository"], found["revision"]) == ("owner/name", COMMIT)
        description = "/api/models/owner/name/revision/main?blobs=true"
        assert [path for _, path, _ in hub.requests] == [description, f"/owner/name/resolve/{COMMIT}/svd.safetensors"]
        assert client.find(hub) == found
        assert len(hub.transfers()) == 1
        asked = len(hub.requests)
        assert client.find(hub, download=False) == found
        assert client.find(hub, f"owner/name@{COMMIT}") == found
        assert client.find(hub, HF_HUB_OFFLINE="1") == found
        assert len(hub.requests) == asked, "none of these needs the network"
    assert client.find(hub) == found, "the server is gone"


def test_nothing_is_fetched_without_being_asked(client: Client) -> None:
    with Hub(files={"svd.safetensors": CONTENT}) as hub:
        said = client.fail(hub, download=False)
        assert "no weights of a repository of that name in the cache: add --download" in said
        assert not hub.requests
        assert client.leftovers() == []


def test_a_versions_own_repository_serves_it(client: Client, tmp_path: Path) -> None:
    own = "stabilityai/stable-video-diffusion-img2vid"
    with Hub(repository=own, files=OTHERS | {"svd.safetensors": CONTENT}) as hub:
        assert "add --download" in client.fail(hub, "", download=False)
        assert not hub.requests
        found = client.find(hub, "")
        assert (found["repository"], found["sha256"]) == (own, sha256(CONTENT))
        assert client.find(hub, "", download=False) == found


def test_a_folder_is_fetched_in_the_parts_that_are_read(client: Client) -> None:
    shards = {name: name.encode() * 100 for name in SHARDS}
    index = json.dumps({"weight_map": {str(number): Path(name).name for number, name in enumerate(SHARDS)}}).encode()
    wanted = shards | {name: name.encode() for name in folder_files()[1:]}
    files = {"model_index.json": b"{}", "vae/diffusion_pytorch_model.fp16.safetensors": b"half", "svd.ckpt": b"pickle"}
    index_name = "unet/diffusion_pytorch_model.safetensors.index.json"
    with Hub(files=files | wanted | {index_name: index}) as hub:
        found = client.find(hub)
        assert found["sha256"] == {name: sha256(content) for name, content in wanted.items()}
        assert sorted(name for name, _ in hub.transfers()) == sorted([*wanted, index_name])
        assert client.find(hub, download=False) == found


@pytest.mark.parametrize("last", ["image_encoder/model.safetensors", SHARDS[1]])
def test_a_part_of_a_folder_is_completed(client: Client, last: str) -> None:
    index = json.dumps({"weight_map": {name: Path(name).name for name in SHARDS}}).encode()
    files = {name: name.encode() * 1000 for name in [*SHARDS, *folder_files()[1:]]}
    with Hub(files=files | {"unet/diffusion_pytorch_model.safetensors.index.json": index}) as hub:
        hub.served_instead[last] = b"short"
        client.fail(hub)
        assert "add --download" in client.fail(hub, download=False)
        missing = [name for name in files if not list(client.home.rglob(Path(name).name)) or name == last]
        hub.served_instead.clear()
        hub.requests.clear()
        client.find(hub)
        assert {name for name, _ in hub.transfers()} == set(missing)
        assert last in missing


def test_a_revision_is_kept_to(client: Client) -> None:
    older = "f" * 40
    with Hub(files={"svd.safetensors": CONTENT}, revisions={"main": COMMIT, "v1.0": older}) as hub:
        assert client.find(hub, "owner/name@v1.0")["revision"] == older
        assert client.find(hub, f"owner/name@{older}", download=False)["revision"] == older
        assert "add --download" in client.fail(hub, download=False), "main was not fetched"
        assert "has no revision 'v2'" in client.fail(hub, "owner/name@v2")


def test_a_moved_branch_is_followed_only_when_asked(client: Client) -> None:
    with Hub(files={"svd.safetensors": CONTENT}) as hub:
        client.find(hub)
        hub.files["svd.safetensors"], hub.revisions["main"] = CONTENT[::-1], "e" * 40
        assert client.find(hub, download=False)["sha256"] == sha256(CONTENT)
        assert client.find(hub)["sha256"] == sha256(CONTENT[::-1])
        assert client.find(hub, f"owner/name@{COMMIT}", download=False)["sha256"] == sha256(CONTENT)


@pytest.mark.parametrize(
    ("cuts", "starts"), [([15 * MIB], [0, 15]), ([11 * MIB, 3 * MIB, 0], [0, 11, 14, 14]), ([0], [0, 0])]
)
def test_a_cut_transfer_is_gone_on_with(client: Client, cuts: list[int], starts: list[int]) -> None:
    content = CONTENT[:MIB] * 25
    with Hub(files={"svd.safetensors": content}, cut=list(cuts)) as hub:
        assert client.find(hub)["sha256"] == sha256(content)
        spans = [f"bytes={start * MIB}-" if start else None for start in starts]
        assert [span for _, span in hub.transfers()] == spans


@pytest.mark.parametrize(
    ("instead", "reason"),
    [(CONTENT[:-1000], "the file ends early"), (CONTENT + b"more", "than the 3,000,000 bytes that the hub announced")],
    ids=["short", "long"],
)
def test_a_wrong_size_is_told(client: Client, instead: bytes, reason: str) -> None:
    with Hub(files={"svd.safetensors": CONTENT}, served_instead={"svd.safetensors": instead}) as hub:
        assert reason in client.fail(hub)
        assert len(hub.transfers()) < 10
        assert "add --download" in client.fail(hub, download=False)
        hub.served_instead.clear()
        assert client.find(hub)["sha256"] == sha256(CONTENT)


def test_wrong_content_is_told_and_let_go(client: Client) -> None:
    with Hub(files={"svd.safetensors": CONTENT}, served_instead={"svd.safetensors": CONTENT[::-1]}) as hub:
        assert "was damaged on the way" in client.fail(hub)
        assert client.leftovers() == []
        hub.served_instead.clear()
        assert client.find(hub)["sha256"] == sha256(CONTENT)


def test_a_licence_that_is_not_accepted(client: Client) -> None:
    with Hub(files={"svd.safetensors": CONTENT}, token=SECRET) as hub:
        said = client.fail(hub)
        assert "asks for its licence to be accepted: do so on https://huggingface.co/owner/name" in said
        assert "`hf auth login`, or set HF_TOKEN" in said
        hub.denied = True
        said = client.fail(hub, HF_TOKEN=SECRET)
        assert "licence to be accepted: do so on https://huggingface.co/owner/name, then run this again" in said
        hub.denied = False
        assert client.find(hub, HF_TOKEN=SECRET)["sha256"] == sha256(CONTENT)


def test_a_login_is_used(client: Client) -> None:
    client.home.mkdir()
    (client.home / "token").write_text(SECRET)
    with Hub(files={"svd.safetensors": CONTENT}, token=SECRET) as hub:
        assert client.find(hub)["sha256"] == sha256(CONTENT)


def test_what_is_not_there_is_told(client: Client) -> None:
    with Hub(files=OTHERS) as hub:
        assert "there is no repository owner/other" in client.fail(hub, "owner/other")
        assert "has no weights for sv3d_u" in client.fail(hub, version="sv3d_u"), "that of another version is none"
        hub.files["a.safetensors"] = hub.files["b.safetensors"] = b"which?"
        said = client.fail(hub, version="sv3d_u")
        assert "has no weights for sv3d_u: neither sv3d_u.safetensors nor" in said
        assert client.leftovers() == []


@pytest.mark.parametrize("status", [403, 500, 503])
def test_a_server_that_refuses(client: Client, status: int) -> None:
    with Hub(files={"svd.safetensors": CONTENT}, status=status) as hub:
        assert f"HTTP status {status}" in client.fail(hub)


def test_no_server_and_no_network_allowed(client: Client) -> None:
    assert "the hub can't be reached" in client.fail("http://127.0.0.1:9")
    assert "HF_HUB_OFFLINE forbids fetching it" in client.fail("http://127.0.0.1:9", HF_HUB_OFFLINE="1")


@pytest.mark.parametrize(
    "told", [b"<html>Log in to the hotel</html>", b"[1, 2]", b"{}", b'{"id": "a/b", "sha": "../x"}']
)
def test_an_answer_that_is_not_the_hubs(client: Client, told: bytes) -> None:
    with Hub(files={"svd.safetensors": CONTENT}) as hub:
        hub.told = told
        assert "what answers is not the hub: log in to the network" in client.fail(hub)
        hub.told = b""
        found = client.find(hub)
        hub.told = told
        assert client.find(hub) == found, "what is in the cache will do"


def test_a_circle_of_redirects(client: Client) -> None:
    with Hub(files={"svd.safetensors": CONTENT}) as hub:
        hub.storage = hub.address
        assert "the hub can't be reached (TooManyRedirects)" in client.fail(hub)
