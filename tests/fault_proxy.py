"""An HTTP proxy in front of an S3 server that does what a bad day does, on the requests that it is told."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
import s3fs

from cluster.s3 import LocalS3

_CODES = {
    503: "SlowDown",
    500: "InternalError",
    429: "TooManyRequests",
    403: "AccessDenied",
    400: "ExpiredToken",
    404: "NoSuchKey",
}


@dataclass
class Fault:
    """What happens to one request: an error status, a delay, a body cut or shortened, or no answer at all."""

    status: int = 0
    delay_s: float = 0.0
    cut: bool = False  # the connection ends in the middle of the body
    short: bool = False  # a shorter body, with a length that agrees
    silent: bool = False  # the connection closes without an answer
    lost: bool = False  # the request is carried out, its answer never comes


#: From the number of a shard request (from 0) and its path to what happens to it.
Weather = Callable[[int, str], Fault | None]


@dataclass
class FaultProxy:
    """Listens on a free port of loopback; ``weather`` may be changed at any time.

    Only requests that ``meets`` names (by method and path) meet the weather, by default reads of a store's
    shards: everything else passes.
    """

    upstream: str
    weather: Weather = lambda number, path: None
    meets: Callable[[str, str], bool] = lambda method, path: method == "GET" and "/shards/" in path
    seen: int = 0
    faults: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "FaultProxy":
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def change(self, weather: Weather) -> None:
        """Other weather from now on; requests are counted anew."""
        with self.lock:
            self.weather, self.seen, self.faults = weather, 0, 0

    def meet(self, method: str, path: str) -> Fault:
        """What happens to a request."""
        if not self.meets(method, path):
            return Fault()
        with self.lock:
            fault = self.weather(self.seen, path)
            self.seen += 1
            self.faults += fault is not None
        return fault or Fault()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: 40 ms between them otherwise
    owner: FaultProxy

    def log_message(self, *_: object) -> None:
        pass

    def _any(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.owner.meet(self.command, self.path)
        time.sleep(fault.delay_s)
        if fault.silent:
            self.close_connection = True
            return
        if fault.status:
            code = _CODES[fault.status]
            body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            self._answer(fault.status, {"Content-Type": "application/xml"}, body, len(body))
            return
        to = http.client.HTTPConnection(urlsplit(self.owner.upstream).netloc, timeout=60)
        try:
            to.request(self.command, self.path, sent, dict(self.headers))
            answer = to.getresponse()
            body = answer.read()
            length = int(answer.getheader("Content-Length") or 0) if self.command == "HEAD" else len(body)
            if fault.lost:
                self.close_connection = True
                return
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in _OWN}
            if fault.short:
                body, length = body[:-7], length - 7
            self._answer(answer.status, kept, body[: len(body) // 2] if fault.cut else body, length)
            self.close_connection = self.close_connection or fault.cut
        finally:
            to.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes, length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _any


_OWN = ("content-length", "connection", "transfer-encoding", "date", "server")


@contextmanager
def proxied_s3(bucket: str) -> Iterator[FaultProxy]:
    """A server with one bucket, which this process reaches through the proxy, as its environment says."""
    with (
        LocalS3(bucket) as server,
        FaultProxy(server.environment["AWS_ENDPOINT_URL"]) as proxy,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in (server.environment | {"AWS_ENDPOINT_URL": proxy.endpoint}).items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield proxy
        s3fs.S3FileSystem.clear_instance_cache()
