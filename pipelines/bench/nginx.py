"""nginx on loopback, serving a folder as an S3 bucket whose objects anyone may read by name and range."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unigeoseg.errors import UserError

_CONFIG = """
daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; keepalive_requests 1000000;
  default_type application/octet-stream;
  client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
  server {{ listen 127.0.0.1:{port}; location /{bucket}/ {{ alias "{root}/"; }} }}
}}
"""
_PATIENCE_S = 10.0


def nginx_installed() -> bool:
    """Whether it can be measured here."""
    return _program() is not None


@contextmanager
def serve_bucket(root: Path, bucket: str = "bench") -> Iterator[str]:
    """Serves ``root``; gives the endpoint. Listing is not possible, so objects must be asked for by name.

    Raises:
        UserError: nginx is not installed, or does not start.
    """
    program = _program()
    if program is None:
        raise UserError("nginx is not installed (Debian and Ubuntu: apt-get install nginx-light)")
    with tempfile.TemporaryDirectory(prefix="unigeoseg-") as name:
        place, port = Path(name), _free_port()
        config = place / "nginx.conf"
        config.write_text(
            _CONFIG.format(place=place, port=port, bucket=bucket, root=root.resolve()), encoding="utf-8"
        )
        process = subprocess.Popen([program, "-c", str(config), "-p", name], stderr=subprocess.DEVNULL)
        try:
            _wait(process, port, place / "error.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _program() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    ends = time.monotonic() + _PATIENCE_S
    while time.monotonic() < ends:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    said = log.read_text(encoding="utf-8") if log.is_file() else ""
    raise UserError(f"nginx does not start on port {port}: {said.strip()}")
