"""A server that speaks the protocol of huggingface.co, as far as fetching files needs it, and fails as it is told to.

GET  /api/models/OWNER/NAME/revision/REVISION   what the repository holds
HEAD /OWNER/NAME/resolve/REVISION/FILE          size, ETag (for large files their SHA-256) and commit
GET  the same                                   the content, from where a Range asks for it; or both redirect to storage
Refusals carry X-Error-Code: GatedRepo, RepoNotFound, RevisionNotFound, EntryNotFound.
"""

import hashlib
import json
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repository and how it is served.

    token: what a request for a file must carry, else 401 with GatedRepo; denied: even then 403, the licence not
    accepted. What there is, the hub tells to all.
    told: what is said of the repository instead of what it holds.
    cut: for each of the next transfers, after how many bytes the connection is closed. reset: the same with a reset.
    stall: the same with a wait until `release` is set. ranges: whether a Range is heard. storage: the address of
    another server that has the files' content. size: what is announced instead of the files' own; nothing if below 0.
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
    size: int | None = None
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

    def log_message(self, *_: object) -> None:
        """Nothing: the tests read `Hub.requests`."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        hub = self.hub
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
            siblings = [{"rfilename": name} for name in hub.files]
            body = json.dumps({"id": hub.repository, "modelId": hub.repository, "sha": commit, "siblings": siblings})
            return self.send(200, {"Content-Type": "application/json"}, hub.told or body.encode())
        assert file is not None
        if file[3] not in hub.files:
            return self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        announced = hub.files[file[3]]
        content = hub.served_instead.get(file[3], announced) if self.command == "GET" else announced
        kind = hashlib.sha1 if file[3].endswith(".json") else hashlib.sha256
        headers = {"X-Linked-Etag": f'"{kind(announced).hexdigest()}"', "X-Repo-Commit": commit}
        if hub.size is not None:
            headers["X-Linked-Size"] = str(hub.size) if hub.size >= 0 else "unknown"
        if hub.storage is not None:
            headers |= {"X-Linked-Size": str(len(announced)), "Location": hub.storage + self.path}
            return self.send(302, headers, b"")
        start, status = 0, 200
        if hub.ranges and (span := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))):
            start, status = int(span[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.send(status, headers, content[start:])

    def refuse(self, status: int, code: str, message: str, more: dict[str, str] | None = None) -> None:
        self.send(status, {"X-Error-Code": code, "X-Error-Message": message, **(more or {})}, b"")

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        is_file = "/resolve/" in self.path
        if is_file and self.hub.stall:
            sent = self.hub.stall.pop(0)
            self.wfile.write(body[:sent])
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
