"""A web server on this machine's loopback: plain files, and repositories as the Hugging Face hub
serves them, with faults on request."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 2000
"""Bytes from which on a file of a repository has a sha256, as those in Git LFS have."""

PIECE = 1024


@dataclass
class Served:
    """What is served, and how. Paths begin with a slash."""

    server: ThreadingHTTPServer
    files: dict[str, bytes] = field(default_factory=dict)
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By name, those of data sets as `datasets/OWNER/NAME`."""
    status: dict[str, int] = field(default_factory=dict)
    """Paths that are answered with an error."""
    cut: dict[str, list[int]] = field(default_factory=dict)
    """After how many bytes the answers for a path break off, one after the other."""
    instead: dict[str, bytes] = field(default_factory=dict)
    """What is sent in place of a path's content."""
    slow: set[str] = field(default_factory=set)
    """Paths whose content comes a kilobyte at a time, one every 20 ms."""
    whole: set[str] = field(default_factory=set)
    """Paths of which the server knows no parts."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and range."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def content(self, path: str) -> bytes | None:
        if path in self.files:
            return self.files[path]
        for name, files in self.repositories.items():
            for revision in ("main", COMMIT):
                inner = path.removeprefix(f"/{name}/resolve/{revision}/")
                if inner in files:
                    return files[inner]
        return None

    def api(self, path: str) -> Any:
        """The hub's answers about repositories."""
        for name, files in self.repositories.items():
            kind = "" if name.startswith("datasets/") else "models/"
            base = f"/api/{kind}{name}"
            if path in (base, *(f"{base}/revision/{each}" for each in ("main", COMMIT))):
                plain = name.removeprefix("datasets/")
                siblings = [self.sibling(each, content) for each, content in files.items()]
                return {"id": plain, "modelId": plain, "sha": COMMIT, "siblings": siblings}
            if path in (f"{base}/tree/{each}" for each in ("main", COMMIT)):
                return [self.entry(each, content) for each, content in files.items()]
        return None

    def sibling(self, name: str, content: bytes) -> dict[str, Any]:
        large = {"lfs": {"sha256": sha256(content), "size": len(content), "pointerSize": 100}}
        rest = large if len(content) >= LARGE else {}
        return {"rfilename": name, "size": len(content), "blobId": git(content), **rest}

    def entry(self, name: str, content: bytes) -> dict[str, Any]:
        large = {"lfs": {"oid": sha256(content), "size": len(content), "pointerSize": 100}}
        rest = large if len(content) >= LARGE else {}
        size = len(content)
        return {"type": "file", "path": name, "size": size, "oid": git(content), **rest}

    def fetched(self, ending: str) -> list[tuple[str, str, str]]:
        """The requests for the content of paths that end so."""
        return [each for each in self.requests if each[0] == "GET" and each[1].endswith(ending)]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving(repositories: Mapping[str, dict[str, bytes]] | None = None) -> Iterator[Served]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Served(server, repositories=dict(repositories or {}))
    server.served = served  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(content=False)

    def do_GET(self) -> None:
        self.answer(content=True)

    def answer(self, content: bool) -> None:
        served: Served = self.server.served  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        served.requests.append((self.command, path, self.headers.get("Range", "")))
        if path in served.status:
            gone = [("X-Error-Code", "RepoNotFound")] if served.status[path] == 404 else []
            self.send(gone, b"", served.status[path], content)
        elif (told := served.api(path)) is not None:
            headers = [("Content-Type", "application/json")]
            self.send(headers, json.dumps(told).encode(), 200, content)
        elif (known := served.content(path)) is not None:
            self.file(served, path, known, content)
        else:
            self.send([("X-Error-Code", "RepoNotFound")], b"", 404, content)

    def file(self, served: Served, path: str, known: bytes, content: bool) -> None:
        large = len(known) >= LARGE
        etag = sha256(known) if large else git(known)
        linked = [("X-Linked-Etag", f'"{etag}"'), ("X-Linked-Size", str(len(known)))]
        headers = [("ETag", f'"{etag}"'), ("X-Repo-Commit", COMMIT), *(linked if large else [])]
        body, status = served.instead.get(path, known), 200
        begins = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
        if begins and path not in served.whole:
            first = int(begins)
            if first >= len(body):
                self.send([("Content-Range", f"bytes */{len(body)}")], b"", 416, content)
                return
            headers.append(("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}"))
            body, status = body[first:], 206
        ends = served.cut[path].pop(0) if content and served.cut.get(path) else None
        self.send(headers, body, status, content, ends, path in served.slow)

    def send(
        self,
        headers: list[tuple[str, str]],
        body: bytes,
        status: int,
        content: bool,
        ends: int | None = None,
        slow: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        if not content:
            return
        sent = body if ends is None else body[:ends]
        try:
            for at in range(0, len(sent), PIECE if slow else max(1, len(sent))):
                self.wfile.write(sent[at : at + (PIECE if slow else len(sent))])
                self.wfile.flush()
                time.sleep(0.02 if slow else 0)
            if ends is not None:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
        except OSError:
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass
