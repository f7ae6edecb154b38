"""A model hub on loopback, as far as ``huggingface_hub`` asks one: repositories, revisions, files."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "a" * 40
_API = re.compile(r"/api/models/(?P<repo>[^/?]+/[^/?]+)(?:/revision/(?P<revision>[^/?]+))?(?:\?.*)?")
_TREE = re.compile(r"/api/models/(?P<repo>[^/?]+/[^/?]+)/tree/(?P<revision>[^/?]+)(?:/?\?.*)?")
_FILE = re.compile(r"/(?P<repo>[^/?]+/[^/?]+)/resolve/(?P<revision>[^/]+)/(?P<name>[^?]+)")


class Hub:
    """What is served, and what was asked.

    Attributes:
        repos: files by repository.
        asked: method and path of each request.
        break_after: bytes after which the next answer of a file breaks off, once.
        lie: whether the checksums told are those of other content.
    """

    def __init__(self, repos: Mapping[str, Mapping[str, bytes]]) -> None:
        self.repos = repos
        self.asked: list[str] = []
        self.break_after: int | None = None
        self.lie = False
        self.endpoint = ""

    def sha256(self, content: bytes) -> str:
        return hashlib.sha256(content + b"?" * self.lie).hexdigest()

    def siblings(self, repo: str) -> list[dict[str, Any]]:
        return [
            {
                "rfilename": name,
                "path": name,
                "type": "file",
                "oid": hashlib.sha1(content).hexdigest(),
                "size": len(content),
                "blobId": hashlib.sha1(content).hexdigest(),
                "lfs": {"sha256": self.sha256(content), "size": len(content), "pointerSize": 100}
                | {"oid": self.sha256(content)},
            }
            for name, content in self.repos[repo].items()
        ]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as in fault_proxy

    def log_message(self, *args: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        hub = self.hub
        hub.asked.append(f"{self.command} {self.path}")
        if match := _FILE.fullmatch(self.path.partition("?")[0]):
            self._file(match["repo"], match["revision"], match["name"], body)
        elif match := _TREE.fullmatch(self.path):
            self._repo(match, lambda repo: hub.siblings(repo))
        elif match := _API.fullmatch(self.path):
            self._repo(
                match,
                lambda repo: {
                    "id": repo,
                    "modelId": repo,
                    "sha": COMMIT,
                    "siblings": hub.siblings(repo),
                    "cardData": {"license": "apache-2.0"},
                    "tags": [],
                    "downloads": 0,
                    "private": False,
                },
            )
        else:
            self._send(404, b"{}", {})

    def _repo(self, match: re.Match[str], content: Any) -> None:
        if match["repo"] not in self.hub.repos:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif match["revision"] not in (None, "main", COMMIT):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            answer = json.dumps(content(match["repo"])).encode()
            self._send(200, answer, {"Content-Type": "application/json"})

    def _file(self, repo: str, revision: str, name: str, body: bool) -> None:
        if repo not in self.hub.repos:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
        if revision not in ("main", COMMIT):
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
        content = self.hub.repos[repo].get(name)
        if content is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, body)
        headers = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        start = 0
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(found[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if start else 200, content[start:], headers, body)

    def _send(self, code: int, content: bytes, headers: Mapping[str, str], body: bool = True) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not body or self.command == "HEAD":
            return
        limit = self.hub.break_after
        if limit is not None and len(content) > limit and code in (200, 206) and "ETag" in headers:
            self.hub.break_after = None
            self.wfile.write(content[:limit])
            self.wfile.flush()
            self.connection.close()
            return
        self.wfile.write(content)


@contextmanager
def hub_server(repos: Mapping[str, Mapping[str, bytes]]) -> Iterator[Hub]:
    """Serves repositories on a free port until the block ends; ``hub.endpoint`` is its address."""
    hub = Hub(repos)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
