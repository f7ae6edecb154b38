"""The files of the page: all are read at the start, so that no request becomes a path."""

from importlib.resources import files

from starlette.responses import Response

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
INDEX = "index.html"


def page_files() -> dict[str, tuple[bytes, str]]:
    """Content and kind of each file by name."""
    found = {}
    for file in files("pipelines.web").joinpath("static").iterdir():
        kind = _KINDS.get("." + file.name.rpartition(".")[2])
        if kind:
            found[file.name] = (file.read_bytes(), kind)
    return found


def respond(found: tuple[bytes, str]) -> Response:
    """A file; browsers ask again whether it changed."""
    return Response(found[0], media_type=found[1], headers={"cache-control": "no-cache"})
