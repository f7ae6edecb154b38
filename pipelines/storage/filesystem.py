"""One way to reach files, in a folder or on S3, by fsspec.

``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and ``AWS_REGION`` are honoured, as are
profiles and instance roles (botocore's own chain). ``UNIGEOSEG_S3_ANONYMOUS=1`` reads public buckets.
"""

import os
import sys
from pathlib import Path
from typing import Any

import fsspec
from fsspec import AbstractFileSystem

from unigeoseg.errors import UserError

#: What fsspec needs for other object stores.
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}


def is_remote(path: str | Path) -> bool:
    """Whether ``path`` names an object store (``s3://bucket/prefix``) rather than a local folder."""
    return "://" in str(path) and not str(path).startswith("file://")


def storage_errors() -> tuple[type[Exception], ...]:
    """What the filesystems raise when an object cannot be had.

    Errors of botocore are no ``OSError``, and neither is aiohttp's for an answer that was cut off.
    """
    botocore, aiohttp = sys.modules.get("botocore.exceptions"), sys.modules.get("aiohttp")
    extra = (botocore.BotoCoreError, botocore.ClientError) if botocore else ()
    return (OSError, ValueError, *extra, *((aiohttp.ClientError,) if aiohttp else ()))


def open_filesystem(path: str | Path, attempts: int | None = None) -> tuple[AbstractFileSystem, str]:
    """The filesystem that ``path`` lives on, and the path inside it (no trailing slash).

    Args:
        path: folder or ``s3://`` prefix.
        attempts: how often the S3 client itself sends a request; for callers that repeat on their own clock,
            since the client's pauses between its default of 8 attempts add up to minutes.

    A local path comes back absolute. The filesystem object must not cross a fork or a pickle boundary that
    changes the environment: call this anew in each process.
    """
    text = str(path)
    if not is_remote(text):
        return fsspec.filesystem("file"), str(Path(text.removeprefix("file://")).expanduser().resolve())
    protocol, _, rest = text.partition("://")
    protocol = protocol.lower()
    options = _options(protocol)
    if protocol in ("http", "https"):  # whose paths are whole addresses
        return _filesystem(protocol, options, text), f"{protocol}://{rest.rstrip('/')}"
    if protocol != "s3" or attempts is None:
        return _filesystem(protocol, options, text), rest.rstrip("/")
    options["config_kwargs"] |= {"retries": {"total_max_attempts": attempts, "mode": "standard"}}
    fs = fsspec.filesystem(protocol, **options)
    fs.retries = attempts  # s3fs repeats around the client's own repetitions
    return fs, rest.rstrip("/")


def _filesystem(protocol: str, options: dict[str, Any], path: str) -> AbstractFileSystem:
    try:
        return fsspec.filesystem(protocol, **options)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        way = f"pip install {package}, or " if package else ""
        raise UserError(
            f"{path}: {protocol}:// needs a package that is not installed; {way}use a folder or s3://bucket/prefix"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path}: {protocol}:// is no kind of storage that is known; use a folder or s3://bucket/prefix"
        ) from error


def _options(protocol: str) -> dict[str, Any]:
    if protocol != "s3":
        return {}
    options: dict[str, Any] = {
        "config_kwargs": {
            "retries": {"max_attempts": 8, "mode": "adaptive"},
            "connect_timeout": 10,
            "read_timeout": 60,
            "max_pool_connections": 64,  # botocore's own 10 would hold up those who read in parallel
        }
    }
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        options["endpoint_url"] = endpoint
    if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        options["client_kwargs"] = {"region_name": region}
    if os.environ.get("UNIGEOSEG_S3_ANONYMOUS") == "1":
        options["anon"] = True
    return options
