"""Byte ranges of objects on S3, by obstore: no HTTP, TLS or event loop in Python.

s3fs stays the way to everything else on S3, and says how a bucket is reached: its settings, endpoint and
credentials are the only ones. Errors are those that s3fs raises.
"""

import logging
import os
import re
import threading
from collections.abc import Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import botocore.session
import obstore
from botocore.exceptions import BotoCoreError, ClientError
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store
from s3fs.errors import translate_boto_error

from pipelines.storage.ranges import Ranges

logger = logging.getLogger(__name__)
#: Credentials are asked for again after this; botocore renews those that last less than ten minutes more.
_CREDENTIALS_FOR: Final = timedelta(minutes=5)
_CLIENT: Final[Any] = {"allow_http": True, "connect_timeout": "10s", "read_timeout": "60s", "timeout": "10m"}
_ANSWER: Final = re.compile(r"<Code>(\w+)</Code>(?:.*?<Message>([^<]*)</Message>)?", re.DOTALL)
_BY_S3FS: Final = "s3://%s is read by s3fs, at several times the CPU: obstore cannot reach it (%s)"
#: Amazon's ordinary endpoints, which obstore makes of the region; a FIPS or dual-stack one is kept.
_AMAZON: Final = re.compile(r"https://s3(\.[a-z0-9-]+)?\.amazonaws\.com")
#: Connections by filesystem and place, as long as anyone has that filesystem; ``None``: s3fs reads there.
_stores: MutableMapping[Any, dict[str, S3Store | None]] = WeakKeyDictionary()
_lock = threading.Lock()


class S3Ranges:
    """The ranges of one bucket's objects, each asked for by a thread that waits outside of Python's lock.

    Until the first bytes have come, what fails is asked of s3fs too: where that reaches what obstore twice
    could not (its own ways around regions, proxies, odd keys), all there is read by it from then on.

    Args:
        filesystem: an ``S3FileSystem``, which sends a request once.
        slow: reads the same ranges by that.
        root: bucket and prefix. Those who read the same place share its connections.
        at_once: most requests under way at a time.
    """

    def __init__(self, filesystem: Any, slow: Ranges, root: str, at_once: int) -> None:
        self._filesystem, self._slow, self._root = filesystem, slow, root
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="ranges")
        self._proven = False

    def __call__(
        self, paths: list[str], starts: list[int], ends: list[int]
    ) -> Sequence[bytes | BaseException]:
        """As :data:`~pipelines.storage.ranges.Ranges`."""
        store = self._connected()
        if store is None:
            return self._slow(paths, starts, ends)
        found = list(self._pool.map(partial(_get, store), paths, starts, ends))
        if self._proven or any(isinstance(answer, bytes) for answer in found):
            self._proven = True
            return found
        others = self._slow(paths, starts, ends)
        if any(isinstance(answer, bytes) for answer in others):
            again = _get(store, paths[0], starts[0], ends[0])
            self._proven = isinstance(again, bytes)
            if not self._proven:
                _stores[self._filesystem][self._root] = None
                logger.warning(_BY_S3FS, self._root, again)
        return others

    def _connected(self) -> S3Store | None:
        with _lock:
            known = _stores.setdefault(self._filesystem, {})
            if self._root not in known:
                known[self._root] = _connect(self._filesystem, self._root.partition("/")[0])
            return known[self._root]


def _get(store: S3Store, path: str, start: int, end: int) -> bytes | BaseException:
    try:
        return obstore.get_range(store, path.partition("/")[2], start=start, end=end).to_bytes()
    except (BaseError, OSError, ValueError) as error:
        return _as_s3fs_says(error)


def _connect(filesystem: Any, bucket: str) -> S3Store | None:
    """A bucket as obstore sees it; ``None`` where it has no way to it."""
    try:
        filesystem.connect()
        client = filesystem.s3.meta
        settings: dict[str, Any] = {"region": client.region_name or "us-east-1"}
        if _AMAZON.fullmatch(client.endpoint_url):
            settings["region"] = bucket_region(filesystem, bucket) or settings["region"]
        else:
            settings["endpoint"] = client.endpoint_url
        if filesystem.anon:
            settings["skip_signature"] = True
        elif (credentials := botocore.session.Session().get_credentials()) is None:
            return None  # s3fs has the words for that
        else:
            settings["credential_provider"] = _provider(credentials)
        options = _CLIENT | _own_certificates()
        return S3Store(bucket, client_options=options, retry_config={"max_retries": 0}, **settings)
    except (BaseError, BotoCoreError, OSError, ValueError) as error:
        logger.warning(_BY_S3FS, bucket, _words(error))
        return None


def _provider(credentials: Any) -> Callable[[], Any]:
    """Hands out what botocore's chain holds, renewed by it where it does not last."""

    def provide() -> dict[str, Any]:
        held = credentials.get_frozen_credentials()
        return {
            "access_key_id": held.access_key,
            "secret_access_key": held.secret_key,
            "token": held.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS_FOR,
        }

    return provide


def _own_certificates() -> dict[str, bytes]:
    """A certificate authority of one's own, as botocore takes it from the environment."""
    path = os.environ.get("AWS_CA_BUNDLE")
    return {"root_certificate": Path(path).read_bytes()} if path else {}


def bucket_region(filesystem: Any, bucket: str) -> str | None:
    """The region that a bucket is in, whatever region one asks; ``None`` where nothing says it.

    botocore follows a bucket to its region by itself, obstore does not.
    """
    try:
        answer = filesystem.call_s3("head_bucket", Bucket=bucket)
    except Exception as error:  # a refusal says it too
        answer = getattr(error.__cause__ or error, "response", None) or {}
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return answer.get("BucketRegion") or headers.get("x-amz-bucket-region")


def _as_s3fs_says(error: Exception) -> bytes | BaseException:
    """The error that s3fs raises for the same answer; no bytes for what begins after an object's end."""
    text = _words(error)
    answer = _ANSWER.search(text)
    if answer is not None and answer[1] == "InvalidRange":
        return b""
    if answer is not None:
        said = {"Error": {"Code": answer[1], "Message": answer[2] or answer[1]}}
        return translate_boto_error(ClientError(said, "GetObject"))
    # An answer without S3's words, as of a proxy, or none.
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(text)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return PermissionError(text)
    return OSError(text)


def _words(error: Exception) -> str:
    """What an error says, without the structures that obstore shows after it."""
    return str(error).partition("\n\nDebug source:")[0].strip()
