"""``unigeoseg cluster check``: what a cluster file lacks, before money is spent."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from jobs.options import emit, json_option


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True), metavar="FILE")
@json_option
def check(file: Path, as_json: bool) -> None:
    """Say what a cluster file lacks before it is started; exit code 2 when something is missing.

    FILE is a file for `ray up`, a folder of Kubernetes files (an overlay), or a file of Kubernetes objects.
    Checked are images, identities and their rights, access tokens, network rules, values left as in the
    example, and what must be on this machine. No cloud is asked: docs/clusters.md lists the rest.

    \b
    Example:
      unigeoseg cluster check ray_cluster.yaml
      unigeoseg cluster check cluster/kuberay/overlays/aws --json
    """
    from cluster.check.check import check as look

    report = look(file)
    result = {
        "file": str(file),
        "kind": report.kind,
        "ok": not report.missing,
        "missing": [asdict(one) for one in report.missing],
        "not_checked": list(report.not_checked),
    }
    emit(result, as_json, _text)
    if report.missing:
        sys.exit(2)


def _text(result: dict[str, Any]) -> str:
    lines = []
    for one in result["missing"]:
        lines += [f"{one['where']}: {one['what']}", f"  -> {one['do']}"]
    count = len(result["missing"])
    lines.append(
        f"{result['file']} ({result['kind']}): " + (f"{count} missing" if count else "nothing missing")
    )
    lines.append(f"not checked from here: {'; '.join(result['not_checked'])} (docs/clusters.md)")
    return "\n".join(lines)
