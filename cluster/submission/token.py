"""Ray's access token, as its own clients find it."""

import os
from pathlib import Path

from cluster.errors import InputError


def read_token(token_file: str | None = None) -> str | None:
    """The access token: of the file, of ``RAY_AUTH_TOKEN`` or ``RAY_AUTH_TOKEN_PATH``, of ``~/.ray``.

    Raises:
        InputError: a file was named and cannot be read.
    """
    if token_file is None and (token := os.environ.get("RAY_AUTH_TOKEN")):
        return token.strip()
    named = token_file or os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        if named:
            raise InputError(f"cannot read the access token {path}: {error.strerror}") from error
        return None
