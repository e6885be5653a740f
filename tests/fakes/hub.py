"""A fake model hub on loopback: what `huggingface_hub` requests, and what may go wrong."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
LARGE = (".safetensors", ".bin", ".model")  # files that are in LFS
ROUTE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>.+))?")
FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_id(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def files_of(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder, by their names in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@dataclass
class FakeHub:
    """A hub of one repository; `asked` are the files that were fetched, each with its range."""

    files: dict[str, bytes] = field(default_factory=dict)
    repo: str = "somebody/tiny"
    commit: str = COMMIT
    token: str = ""  # required to see the repository
    refusal: tuple[int, str] | None = None  # status and code of all answers
    sizes: Mapping[str, int] = field(default_factory=dict)  # reported, and wrong
    damaged: set[str] = field(default_factory=set)  # files sent with a wrong last byte
    cuts: dict[str, list[int]] = field(default_factory=dict)  # bytes after which an answer ends
    stalls: set[str] = field(default_factory=set)  # files never sent to their end
    is_simple: bool = False  # supports no ranges
    is_hub: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def info(self) -> dict[str, Any]:
        siblings = [self._sibling(name, data) for name, data in sorted(self.files.items())]
        return {"id": self.repo, "sha": self.commit, "tags": [], "siblings": siblings}

    def _sibling(self, name: str, data: bytes) -> dict[str, Any]:
        size = self.sizes.get(name, len(data))
        said = {"rfilename": name, "size": size, "blobId": git_id(data)}
        if name.endswith(LARGE):
            said["lfs"] = {"size": size, "sha256": sha256(data), "pointerSize": 134}
        return said

    def sent(self, name: str) -> bytes:
        data = self.files[name]
        return data[:-1] + bytes([data[-1] ^ 1]) if name in self.damaged else data

    def names(self) -> set[str]:
        """Return the files that were requested."""
        return {name for name, _ in self.asked}


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if refusal := self._refusal(path):
                self._answer(refusal[0], b"{}", {"X-Error-Code": refusal[1]})
            elif ROUTE.fullmatch(path):
                said = json.dumps(hub.info()).encode() if hub.is_hub else b"<html>"
                self._answer(200, said, {})
            else:
                self._send(path.split("/", 5)[5])

        def _refusal(self, path: str) -> tuple[int, str] | None:
            found = ROUTE.fullmatch(path) or FILE.fullmatch(path)
            if found is None:
                return 404, ""
            if hub.token and self.headers["authorization"] != f"Bearer {hub.token}":
                return 401, "RepoNotFound"
            if hub.refusal or found["repo"] != hub.repo:
                return hub.refusal or (404, "RepoNotFound")
            if found["revision"] not in (None, "main", hub.commit):
                return 404, "RevisionNotFound"
            if "file" in found.groupdict() and found["file"] not in hub.files:
                return 404, "EntryNotFound"
            return None

        def _send(self, name: str) -> None:
            data, asked = hub.sent(name), self.headers["range"] or ""
            hub.asked.append((name, asked))
            about = {
                "ETag": f'"{git_id(data)}"',
                "X-Repo-Commit": hub.commit,
                "Accept-Ranges": "bytes",
            }
            begin = 0 if hub.is_simple else int(asked.removeprefix("bytes=").rstrip("-") or 0)
            if begin:
                about["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            cuts = hub.cuts.get(name, [])
            self._answer(
                206 if begin else 200,
                data[begin:],
                about,
                cuts.pop(0) if cuts else None,
                is_stalled=name in hub.stalls,
            )

        def _answer(
            self,
            status: int,
            body: bytes,
            headers: dict[str, str],
            cut: int | None = None,
            *,
            is_stalled: bool = False,
        ) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body[: len(body) * 2 // 3 if is_stalled else cut])
            if is_stalled:
                self.rfile.read(1)  # until the client is gone
            self.close_connection = is_stalled or cut is not None

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
