"""Secrets on their way to a job: sealed with the cluster's access token, so that no page or log shows them.

A job's runtime environment is public inside the cluster: the dashboard prints it. It carries secrets only as
one sealed text. Whoever holds the token opens it, and whoever holds the token may run anything there anyway.
"""

import base64
import json
from collections.abc import Mapping

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cluster.errors import InputError

#: The variable of the runtime environment that carries them.
SEALED = "UNIGEOSEG_SEALED"
HIDDEN = "<hidden>"
_SHORTEST = 6


def seal(values: Mapping[str, str], token: str) -> str:
    """Secrets as one text that only ``token`` opens."""
    return _cipher(token).encrypt(json.dumps(dict(values)).encode()).decode()


def unseal(text: str, token: str) -> dict[str, str]:
    """What :func:`seal` took.

    Raises:
        InputError: the token is another one than at submission.
    """
    try:
        content: dict[str, str] = json.loads(_cipher(token).decrypt(text.encode()))
    except InvalidToken as error:
        raise InputError(
            "the job's secrets were sealed with another access token than this cluster's; submit it again"
        ) from error
    return content


class Redactor:
    """Replaces secrets in text.

    Args:
        values: the secrets. Very short ones are not looked for: they would blacken half of a log.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        parts = {part for value in values.values() for part in (value, *value.splitlines())}
        self._values = sorted((v for v in parts if len(v) >= _SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """``text`` without them."""
        for value in self._values:
            text = text.replace(value, HIDDEN)
        return text


def _cipher(token: str) -> Fernet:
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"unigeoseg job secrets").derive(
        token.encode()
    )
    return Fernet(base64.urlsafe_b64encode(key))
