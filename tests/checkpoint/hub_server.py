"""A server that speaks the protocol of huggingface.co, as far as fetching files needs it, and fails or lies as asked.

GET /api/models/OWNER/NAME/revision/REVISION?blobs=true   what the repository holds, with sizes and digests
GET /OWNER/NAME/resolve/REVISION/FILE                     the content, from where a Range asks for it; or a redirect
Refusals carry X-Error-Code: GatedRepo, RepoNotFound, RevisionNotFound, EntryNotFound.
"""

import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repository and how it is served.

    token: what a request for a file must carry, else 401 with GatedRepo; denied: even then 403, the licence not
    accepted. The description of the repository is open to all.
    told: what is said of the repository instead of what it holds.
    cut: for each of the next transfers, after how many bytes the connection is closed. reset: the same with a reset.
    stall: the same with a wait until `release` is set. ranges: whether a Range is heard. storage: the address of
    another server that has the files' content. size: what is announced instead of the files' own.
    silent: answers nothing, until `release` is set; drip: sends bodies byte by byte, with so many seconds in between;
    endless: sends bodies without end; location: redirects there what asks for a path that this expression finds;
    headers: sent with every answer.
    """

    repository: str = "owner/name"
    files: dict[str, bytes] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    token: str | None = None
    denied: bool = False
    status: int = 200
    told: bytes = b""
    cut: list[int] = field(default_factory=list)
    reset: list[int] = field(default_factory=list)
    stall: list[int] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    ranges: bool = True
    storage: str | None = None
    size: object = None
    silent: bool = False
    drip: float = 0
    endless: bool = False
    location: tuple[str, str] = ("^$", "")
    headers: dict[str, str] = field(default_factory=dict)
    served_instead: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)

    def __enter__(self) -> "Hub":
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def listing(self, commit: str = COMMIT) -> dict[str, Any]:
        """The description of the repository."""
        siblings: list[dict[str, Any]] = []
        for name, content in self.files.items():
            size = len(content) if self.size is None else self.size
            blob_id = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            siblings.append({"rfilename": name, "size": size, "blobId": blob_id})
            if not name.endswith((".json", ".md")):
                sha256 = hashlib.sha256(content).hexdigest()
                siblings[-1]["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 134}
        return {"id": self.repository, "modelId": self.repository, "sha": commit, "siblings": siblings}

    def transfers(self) -> list[tuple[str, str | None]]:
        """The files that were asked for with GET, each with its Range."""
        return [
            (path.split("/", 5)[-1], span)
            for method, path, span in self.requests
            if method == "GET" and "resolve" in path
        ]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # whoever asked was killed, or had enough
            super().handle()

    def log_message(self, *_: object) -> None:
        """Nothing: the tests read `Hub.requests`."""

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        hub = self.hub
        if hub.silent:
            hub.release.wait()
        if re.search(hub.location[0], self.path):
            return self.send(302, {"Location": hub.location[1]}, b"")
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^?]+))?(?:\?.*)?", self.path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)", self.path)
        match = api or file
        if hub.status != 200:
            return self.refuse(hub.status, "", "the server is not well")
        if match is None or match[1] != hub.repository:
            return self.refuse(401, "RepoNotFound", "Invalid username or password.")
        hub.tokens.add(self.headers.get("Authorization"))
        if file and hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.refuse(401, "GatedRepo", "Access to this model is restricted.")
        if file and hub.denied:
            return self.refuse(403, "GatedRepo", "You are not in the authorized list.")
        revision = (match[2] or "main").replace("%2F", "/")
        commit = revision if revision in hub.revisions.values() else hub.revisions.get(revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound", "Invalid rev id")
        if api:
            body = json.dumps(hub.listing(commit)) if "blobs=true" in self.path else "no sizes were asked for"
            return self.send(200, {"Content-Type": "application/json"}, hub.told or body.encode())
        assert file is not None
        if file[3] not in hub.files:
            return self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        content = hub.served_instead.get(file[3], hub.files[file[3]])
        headers = {"X-Repo-Commit": commit}
        if hub.storage is not None:
            return self.send(302, headers | {"Location": hub.storage + self.path}, b"")
        start, status = 0, 200
        if hub.ranges and (span := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))):
            if int(span[1]) >= len(content):
                return self.send(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            start, status = int(span[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.send(status, headers, content[start:])

    def refuse(self, status: int, code: str, message: str, more: dict[str, str] | None = None) -> None:
        self.send(status, {"X-Error-Code": code, "X-Error-Message": message, **(more or {})}, b"")

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        length = {} if self.hub.endless else {"Content-Length": str(len(body))}
        for name, value in {**headers, **length, **self.hub.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        while self.hub.endless:
            self.wfile.write(bytes(2**16))
        if self.hub.drip:
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.hub.release.wait(self.hub.drip)
            return
        is_file = "/resolve/" in self.path
        if is_file and self.hub.stall:
            sent = self.hub.stall.pop(0)
            self.wfile.write(body[: sent - 100])
            time.sleep(0.2)  # the last bytes come as a piece of their own, smaller than any buffer
            self.wfile.write(body[sent - 100 : sent])
            self.hub.release.wait()
            body = body[sent:]
        if is_file and self.hub.reset:
            self.wfile.write(body[: self.hub.reset.pop(0)])
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif is_file and self.hub.cut:
            self.wfile.write(body[: self.hub.cut.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(body)
