"""Weights by reference to a model hub: ``hf://ORG/NAME[@REVISION][/FILE]``, through ``huggingface_hub``.

Its own variables say where the hub and the cache are (``HF_ENDPOINT``, ``HF_HOME``), who asks (``HF_TOKEN``),
and that nothing may be fetched (``HF_HUB_OFFLINE=1``). What is in the cache is not fetched again, and what
broke off goes on.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigeoseg.errors import UserError

SCHEME = "hf://"
_FORM = re.compile(r"hf://(?P<repo>[\w.\-]+/[\w.\-]+)(?:@(?P<revision>[\w.\-]+))?(?:/(?P<file>.+))?")
#: What a model's folder holds besides weights that are read here: other frameworks' copies of them.
_OTHERS = ["*.msgpack", "*.h5", "*.onnx", "*.ot", "*.tflite", "*.mlmodel", "onnx/*", "openvino/*", "coreml/*"]


@dataclass(frozen=True)
class HubReference:
    """Of a repository or of one file in it."""

    repo: str
    revision: str | None
    file: str | None

    @staticmethod
    def parse(text: str) -> "HubReference":
        """From ``hf://ORG/NAME[@REVISION][/FILE]``.

        Raises:
            UserError: another form.
        """
        match = _FORM.fullmatch(text.rstrip("/"))
        if match is None:
            raise UserError(
                f"{text}: a hub's reference is hf://ORG/NAME, hf://ORG/NAME@REVISION, or with /FILE"
            )
        return HubReference(match["repo"], match["revision"], match["file"])

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{SCHEME}{self.repo}{revision}" + (f"/{self.file}" if self.file else "")


@dataclass(frozen=True)
class HubFile:
    """A file of a repository as the hub describes it; ``sha256`` where it is stored apart (weights are)."""

    name: str
    bytes: int
    sha256: str | None


def hub_copy(text: str) -> Path:
    """A local path of what a reference names: from the cache, or fetched into it.

    Raises:
        UserError: there is no such repository, revision or file, or nobody answers and the cache lacks it.
    """
    import huggingface_hub

    reference = HubReference.parse(text)
    try:
        if reference.file:
            return Path(
                huggingface_hub.hf_hub_download(reference.repo, reference.file, revision=reference.revision)
            )
        return Path(
            huggingface_hub.snapshot_download(
                reference.repo, revision=reference.revision, ignore_patterns=_OTHERS
            )
        )
    except Exception as error:
        raise _told(reference, error) from error


def hub_files(text: str) -> tuple[list[HubFile], str | None]:
    """The files of a reference and its licence, as the hub tells them now.

    Raises:
        UserError: as for :func:`hub_copy`.
    """
    import huggingface_hub

    reference = HubReference.parse(text)
    try:
        found: Any = huggingface_hub.HfApi().model_info(
            reference.repo, revision=reference.revision, files_metadata=True
        )
    except Exception as error:
        raise _told(reference, error) from error
    files = [
        HubFile(s.rfilename, int(s.size or 0), s.lfs.sha256 if s.lfs else None)
        for s in found.siblings or []
        if reference.file in (None, s.rfilename)
    ]
    if not files:
        raise UserError(f"{reference}: {reference.repo} has no file {reference.file}")
    licence = getattr(found.card_data, "license", None) if found.card_data else None
    return files, licence


def cached_path(text: str) -> Path | None:
    """Where the cache holds what a reference names; ``None``: it would be fetched."""
    import huggingface_hub

    reference = HubReference.parse(text)
    try:
        if reference.file:
            return Path(
                huggingface_hub.hf_hub_download(
                    reference.repo, reference.file, revision=reference.revision, local_files_only=True
                )
            )
        return Path(
            huggingface_hub.snapshot_download(
                reference.repo,
                revision=reference.revision,
                ignore_patterns=_OTHERS,
                local_files_only=True,
            )
        )
    except Exception:  # the library has a dozen ways to say that it is not there
        return None


def _told(reference: HubReference, error: Exception) -> UserError:
    """The library's error in words that name the way out."""
    from huggingface_hub import errors

    by_hand = "or put its files into a folder by hand and give that folder instead"
    reason = (str(error).strip().splitlines() or [""])[0]
    known: list[tuple[type[Exception], str]] = [
        (
            errors.GatedRepoError,
            "it is given to those who accepted its terms: do so on its page, set HF_TOKEN",
        ),
        (errors.RepositoryNotFoundError, "the hub has no such repository, or HF_TOKEN may not read it"),
        (errors.RevisionNotFoundError, f"{reference.repo} has no revision {reference.revision}"),
        (errors.OfflineModeIsEnabled, f"not in the cache, and HF_HUB_OFFLINE is set: unset it, {by_hand}"),
        (
            errors.LocalEntryNotFoundError,
            f"not in the cache, and nobody answers: look at the network and at HF_ENDPOINT, {by_hand}",
        ),
        (errors.EntryNotFoundError, f"{reference.repo} has no file {reference.file}"),
    ]
    for kind, words in known:
        if isinstance(error, kind):
            return UserError(f"{reference}: {words}")
    return UserError(
        f"{reference} cannot be fetched ({type(error).__name__}: {reason}): look at the network and at "
        f"HF_ENDPOINT, {by_hand}"
    )
