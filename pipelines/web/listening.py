"""The HTTP server around an application: who may reach it, how it starts and how it ends."""

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipelines.web.guard import LOOPBACK
from unigeoseg.errors import UserError

#: Seconds in which a connection must have sent its headers, and stays open without a request.
_HEADERS, _KEEP = 20.0, 20
#: Connections at once.
_MOST = 256
#: Seconds in which what is under way is answered at the end.
_DRAIN = 120
_LEAST_TOKEN = 16


@dataclass(frozen=True)
class Address:
    """Where a service listens.

    Attributes:
        host: name or number.
        port: 0: one that is free.
        token: that callers must know; ``None``: none, on loopback alone.
    """

    host: str
    port: int
    token: str | None

    @classmethod
    def choose(cls, host: str, port: int, token: str | None) -> "Address":
        """An address that is safe to listen on.

        Args:
            host: to listen on.
            port: likewise.
            token: a secret, ``auto`` for a new one, or ``None``.

        Raises:
            UserError: others could reach it and there is no token, or it is easily guessed.
        """
        if token == "auto":
            token = secrets.token_urlsafe(24)
        if token is None and host not in LOOPBACK:
            raise UserError(
                f"--host {host} can be reached from other machines: give --token auto (or a secret in "
                "UNIGEOSEG_TOKEN), or leave --host out"
            )
        if token is not None and len(token) < _LEAST_TOKEN:
            raise UserError(f"the token has {len(token)} characters: give at least {_LEAST_TOKEN}, or auto")
        return cls(host, port, token)


class _Protocol(H11Protocol):
    """uvicorn's, with a limit on the time until a connection's first request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(_HEADERS, self._check)

    def _check(self) -> None:
        if self.scope is None and not self.transport.is_closing():
            self.transport.close()


@dataclass(frozen=True)
class Listening:
    """A server whose port is open and that does not answer yet.

    Attributes:
        server: uvicorn's.
        socket: that it listens on.
        url: to open, token included.
    """

    server: uvicorn.Server
    socket: socket.socket
    url: str

    def run(self) -> None:
        """Answers until the server's ``should_exit``; what is under way then is answered first."""
        with contextlib.closing(self.socket):
            self.server.run(sockets=[self.socket])


def listen(app: Any, address: Address) -> Listening:
    """Opens the port.

    Args:
        app: ASGI application.
        address: to listen on.

    Raises:
        UserError: the port is taken, or the host is not of this machine.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server((address.host, address.port), family=family, backlog=256)
    except OSError as error:
        raise UserError(
            f"--host {address.host} --port {address.port} cannot be listened on ({error.strerror}): choose "
            "another port, or --port 0 for a free one"
        ) from error
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP,
        timeout_graceful_shutdown=_DRAIN,
        limit_concurrency=_MOST,
        log_config=None,
    )
    shown = f"[{address.host}]" if ":" in address.host else address.host
    url = f"http://{shown}:{listener.getsockname()[1]}/" + (
        f"?token={address.token}" if address.token else ""
    )
    return Listening(uvicorn.Server(config), listener, url)


def serve(listening: Listening, told: Callable[[str], None]) -> None:
    """Serves until the process is told to end (SIGTERM, Ctrl+C); both are a success.

    Args:
        listening: opened.
        told: gets the address to open.
    """
    told(listening.url)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # which uvicorn raises again once all is answered
    with contextlib.suppress(KeyboardInterrupt):
        listening.run()
