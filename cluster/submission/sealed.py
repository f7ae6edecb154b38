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
from cluster.submission.redaction import HIDDEN, Redactor
from cluster.submission.token import read_token

#: The variable of the runtime environment that carries them.
SEALED = "UNIGEOSEG_SEALED"
__all__ = ["HIDDEN", "SEALED", "Redactor", "open_sealed", "seal", "unseal"]


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


def open_sealed(text: str) -> dict[str, str]:
    """What :func:`seal` took, opened with this node's own access token.

    Raises:
        InputError: it has none, or another one than at submission.
    """
    token = read_token()
    if token is None:
        raise InputError("the job has secrets but this node has no access token (RAY_AUTH_TOKEN_PATH)")
    return unseal(text, token)


def _cipher(token: str) -> Fernet:
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"unigeoseg job secrets").derive(
        token.encode()
    )
    return Fernet(base64.urlsafe_b64encode(key))
