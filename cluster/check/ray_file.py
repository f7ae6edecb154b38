"""A file for ``ray up``: what every provider needs."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.check.clouds import check_aws, check_gcp, check_own_machines
from cluster.check.finding import Finding, Report, rows, table
from cluster.errors import InputError

_CHECKS = {"aws": check_aws, "gcp": check_gcp, "local": check_own_machines}
_NOT_CHECKED = {
    "aws": (
        "that the image, both instance profiles and the buckets exist in the region",
        "quotas of the account for these machines (new accounts have none for GPUs), and the spot role",
        "what your own credentials may do",
    ),
    "gcp": (
        "that the project, both service accounts and the zone's machines exist",
        "quotas of the project for GPUs (new projects have none)",
        "what your own credentials may do",
    ),
    "local": ("that the machines answer, see one another and have Python 3.11",),
}
_TOKEN = ".ray/auth_token"
_MODE = re.compile(r"RAY_AUTH_MODE=[\"']?(\w+)")
_SOURCED = re.compile(r"(?:^|[\s;&|])(?:\.|source)\s+\S+")


def check_ray_file(content: dict[str, Any], name: str) -> Report:
    """What a file for ``ray up`` lacks.

    Raises:
        InputError: its provider is none that is known here.
    """
    kind = table(content.get("provider")).get("type")
    if not isinstance(kind, str) or kind not in _CHECKS:
        raise InputError(f"{name}: provider.type {kind}: checked are {', '.join(_CHECKS)}")
    refused = _without_groups(content, kind) or _refused(content)
    if refused is not None:
        found = [refused]
    else:
        found = [*_CHECKS[kind](content), *_mounts(content), *_token(content), *_starts(content)]
        found += _carried(content)
    return Report(kind, _told_once(found), _NOT_CHECKED[kind])


def _told_once(found: list[Finding]) -> tuple[Finding, ...]:
    """The same thing in several groups as one finding with all its places."""
    places: dict[tuple[str, str], list[str]] = {}
    for one in found:
        places.setdefault((one.what, one.do), []).append(one.where)
    return tuple(Finding(", ".join(where), what, do) for (what, do), where in places.items())


def _without_groups(content: dict[str, Any], kind: str) -> Finding | None:
    if kind == "local" or table(content.get("available_node_types")):
        return None
    return Finding("available_node_types", "no groups of nodes: Ray takes its own examples", "name them")


def _refused(content: dict[str, Any]) -> Finding | None:
    """What Ray's own schema says; it knows nothing of what stands in ``node_config``."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(copy.deepcopy(content)))
    except Exception as error:  # Ray raises many kinds; each of them ends `ray up` as well
        reason = str(getattr(error, "message", error)).strip().splitlines()
        return Finding(
            "the file",
            f"Ray refuses it: {reason[0] if reason else type(error).__name__}",
            "compare it with ray_cluster.yaml",
        )
    return None


def _mounts(content: dict[str, Any]) -> Iterator[Finding]:
    for target, source in table(content.get("file_mounts")).items():
        if not target.endswith(_TOKEN) and not Path(str(source)).expanduser().exists():
            yield Finding(
                f"file_mounts.{target}",
                f"{source} is not here, and `ray up` ends with a traceback",
                "run it from the project's folder, or take the line out",
            )


def _token(content: dict[str, Any]) -> Iterator[Finding]:
    sources = [s for t, s in table(content.get("file_mounts")).items() if t.endswith(_TOKEN)]
    if not sources:
        yield Finding(
            "file_mounts",
            "nodes get no access token, without which they must not start",
            f"add /home/ubuntu/{_TOKEN}: ~/{_TOKEN}",
        )
    for source in sources:
        path = Path(str(source)).expanduser()
        if not path.is_file() or not path.read_text(encoding="utf-8", errors="replace").strip():
            yield Finding(
                str(source),
                "there is no access token on this machine, and `ray up` ends with a bare error about a file",
                "run `ray get-auth-token --generate` once",
            )


def _starts(content: dict[str, Any]) -> Iterator[Finding]:
    for part in ("head", "worker"):
        name = f"{part}_start_ray_commands"
        command = next((str(c) for c in rows(content.get(name)) if "ray start" in str(c)), None)
        if command is None:
            yield Finding(
                name,
                "no command starts Ray with an access token: Ray's own commands run open",
                "take the command of ray_cluster.yaml",
            )
        elif not _demands_token(command.partition("ray start")[0]):
            yield Finding(
                name,
                "Ray runs open when the token or the file of endpoints is missing: who reaches a port of the "
                "cluster runs what he likes on it",
                "`export RAY_AUTH_MODE=token;` right before `ray start`, after any file that is read there",
            )


def _demands_token(before: str) -> bool:
    """Whether the last word on the mode is ``token`` and no file that is read later can change it."""
    modes = list(_MODE.finditer(before))
    sourced = max((match.end() for match in _SOURCED.finditer(before)), default=0)
    return bool(modes) and modes[-1][1] == "token" and modes[-1].start() >= sourced


def _carried(content: dict[str, Any]) -> Iterator[Finding]:
    if ".gitignore" in rows(content.get("rsync_filter")):
        yield Finding(
            "rsync_filter",
            "files that git ignores stay here, unigeoseg.env with the endpoints among them",
            "leave things out by name, in rsync_exclude",
        )
