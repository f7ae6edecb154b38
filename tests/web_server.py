"""A web server on loopback: lists folders as others do, answers to ranges, counts what it sends."""

import re
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote


class WebServer:
    """Serves a folder; ``sent`` has bytes by path, ``asked`` requests, ``largest`` the largest answer.

    Args:
        folder: what is served.
        marks: gives the header that tells a file's state from others, name and value; ``None`` sends none.
    """

    def __init__(self, folder: Path, marks: Callable[[Path], tuple[str, str]] | None = None) -> None:
        self.folder, self.marks = folder, marks
        self.sent: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.largest: Counter[str] = Counter()

    def __enter__(self) -> "WebServer":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # as in fault_proxy

            def do_HEAD(self):
                self.do_GET(body=False)

            def do_GET(self, body=True):
                outer.answer(self, body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        path = unquote(request.path.partition("?")[0]).strip("/")
        file = self.folder / path
        self.asked[path] += 1
        if file.is_dir():
            kind, data = "text/html", self._page(file).encode()
        elif file.is_file():
            kind, data = "application/octet-stream", file.read_bytes()
        else:
            return request.send_error(404)
        wanted = re.match(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        part = data[start : int(wanted[2]) + 1 if wanted and wanted[2] else len(data)]
        request.send_response(206 if wanted else 200)
        request.send_header("Content-Type", kind)
        request.send_header("Accept-Ranges", "bytes")
        if file.is_file() and self.marks:
            request.send_header(*self.marks(file))
        request.send_header("Content-Length", str(len(part)))
        if wanted:
            request.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        request.end_headers()
        if body:
            self.sent[path] += len(part)
            self.largest[path] = max(self.largest[path], len(part))
            request.wfile.write(part)
        return None

    @staticmethod
    def _page(folder: Path) -> str:
        names = [f"{quote(p.name)}{'/' if p.is_dir() else ''}" for p in sorted(folder.iterdir())]
        others = ["../", "?C=N;O=D", "/", "https://example.org/a.png"]
        return "<html>" + "\n".join(f'<a href="{name}">{name}</a>' for name in [*others, *names])
