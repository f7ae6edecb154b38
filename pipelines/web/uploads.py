"""A picture that a caller sends: written to a file as it arrives, deleted where it is none."""

import secrets
from pathlib import Path
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from pipelines.web.images import Image, Images

#: Bytes that are gathered before they are written.
_PART = 1 << 20
_NAME = 120


async def receive_image(request: Request, images: Images) -> Image:
    """The body of a request as a picture.

    Args:
        request: whose body is the file; ``X-File-Name`` is what people see of it (percent-encoded).
        images: where it becomes known.

    Raises:
        HTTPException: it is too large or comes too slowly.
        UserError: it is no picture that is read.
    """
    path = images.folder / secrets.token_hex(16)
    name = _shown(request.headers.get("x-file-name", ""))
    try:
        await _write(request, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return await run_in_threadpool(images.add_upload, path, name)


async def _write(request: Request, path: Path) -> None:
    held = bytearray()
    with path.open("wb") as file:
        async for part in request.stream():
            held += part
            if len(held) >= _PART:
                await run_in_threadpool(file.write, bytes(held))
                held.clear()
        file.write(held)


def _shown(name: str) -> str:
    """A file's name for people: one line, without folders."""
    text = "".join(c for c in unquote(name) if c.isprintable())
    return text.replace("\\", "/").rpartition("/")[2][:_NAME] or "picture"
