"""What stands before the application: who may ask, how much and how slowly, and what browsers may do."""

import asyncio
import base64
import hmac
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "unigeoseg_token"
#: Paths that need no token: a cluster asks them.
OPEN = ("/healthz", "/readyz")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Bytes of a request's body, uploads apart.
_BODY = 1024 * 1024
_DAY = 86_400
#: No other origin's code, no frames, no forms; pictures also from the page's own memory.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "geolocation=(), camera=(), microphone=()",
}


@dataclass(frozen=True)
class Limits:
    """What a request may take.

    Attributes:
        upload: bytes of an upload.
        first: seconds that a body may take whatever its size.
        rate: bytes that must arrive a second from then on.
    """

    upload: int = 512 * 1024 * 1024
    first: float = 20.0
    rate: int = 64 * 1024


class Guard:
    """Middleware.

    Without a token only names of this machine are taken as the host of a request, so that no other name can
    be made to mean it; requests that a browser makes for another site are refused in any case.

    Args:
        app: behind it.
        token: that callers must know; ``None``: none is needed.
        limits: of bodies.
    """

    def __init__(self, app: ASGIApp, token: str | None, limits: Limits) -> None:
        self._app, self._token, self._limits = app, token, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, guarded)
            return
        body = _Body(receive, self._most(scope), self._limits)
        try:
            await self._app(scope, body.receive, guarded)
        except HTTPException as error:  # raised while no route was reading
            await _told(error.status_code, str(error.detail))(scope, receive, guarded)

    def _most(self, scope: Scope) -> int:
        upload = scope["method"] == "PUT" and scope["path"] == "/v1/images"
        return self._limits.upload if upload else _BODY

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._token is None and host_name(host) not in LOOPBACK:
            return _told(403, f"{host[:80]!r} is no name of this machine; give a token to serve other hosts")
        if _foreign(scope, headers, host):
            return _told(403, "this was asked for another site's sake")
        if self._token is not None and scope["path"] not in OPEN:
            refusal = self._check_token(scope, headers)
            if refusal is not None:
                return refusal
        declared = headers.get("content-length")
        if declared and (not declared.isdigit() or int(declared) > self._most(scope)):
            return _told(413, f"the body is too large: up to {self._most(scope)} bytes are taken")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            return _told(415, "POST takes application/json; a picture goes by PUT to /v1/images")
        return None

    def _check_token(self, scope: Scope, headers: Headers) -> Response | None:
        """Refuses those who do not know the token; ``/?token=…`` is remembered in a cookie."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and scope["path"] == "/" and self._known(given):
            response = RedirectResponse("/", 303)
            response.set_cookie(COOKIE, given, max_age=_DAY, httponly=True, samesite="strict")
            return response
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":  # all that Label Studio can send: any name, the token as password
            secret = _password(secret)
        if kind.lower() in ("bearer", "basic") and self._known(secret.strip()):
            return None
        if any(self._known(value) for value in _cookies(headers, COOKIE)):
            return None
        return _told(
            401, "a token is needed: open the address with ?token=…, or send Authorization: Bearer …"
        )

    def _known(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())


class _Body:
    """A body as it arrives: not too much of it, and not too slowly.

    Args:
        receive: of the server.
        most: bytes.
        limits: of time.
    """

    def __init__(self, receive: Receive, most: int, limits: Limits) -> None:
        self._receive, self._most, self._limits = receive, most, limits
        self._began, self._bytes, self._done = time.monotonic(), 0, False

    async def receive(self) -> Message:
        """The next part.

        Raises:
            HTTPException: 413 or 408.
        """
        if self._done:  # only a disconnection is still to come
            return await self._receive()
        allowed = self._limits.first + self._bytes / self._limits.rate
        left = self._began + allowed - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0))
        except TimeoutError as error:
            raise HTTPException(408, "the body came too slowly", {"connection": "close"}) from error
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._most:
            raise HTTPException(
                413, f"the body is too large: up to {self._most} bytes are taken", {"connection": "close"}
            )
        self._done = not message.get("more_body", False)
        return message


def host_name(host: str) -> str:
    """The name in a Host header, small and without its port."""
    text = host.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if ":" in text else text


def _foreign(scope: Scope, headers: Headers, host: str) -> bool:
    """Whether a browser asks because a page of another site made it."""
    site = headers.get("sec-fetch-site", "none")
    if site in ("cross-site", "same-site") and scope["path"] != "/":
        return True
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2].lower() != host.strip().lower()


def _password(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("utf-8").partition(":")[2]
    except ValueError:
        return ""


def _cookies(headers: Headers, name: str) -> list[str]:
    parts = (part.strip().partition("=") for text in headers.getlist("cookie") for part in text.split(";"))
    return [value.strip('"') for key, _, value in parts if key == name]


def _told(status: int, detail: str) -> JSONResponse:
    more: dict[str, Any] = {"connection": "close"} if status in (408, 413) else {}
    return JSONResponse({"detail": detail}, status, more)
