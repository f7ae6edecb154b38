"""``unigeoseg submit``: a command of ours as a job on a cluster."""

import os
import time
from pathlib import Path
from typing import Any

import click

from cluster.errors import InputError
from cluster.local.state import read_state, state_folder

#: Options of our commands whose value is a path.
_PATHS = ("--store", "--run", "--out", "--model", "--data", "--root")
#: Commands with a folder of their own choice under runs/: what names it, and the choice's first part.
_FOLDERS = {"train": ("--run", "train"), "sweep": ("--out", "sweep"), "ablate": ("--out", "ablation")}
_ACTIONS = ("stop", "follow", "list")
_LOOPBACK = ("127.0.0.1", "localhost")


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--address", help="URL of the dashboard. [RAY_API_SERVER_ADDRESS, else the local cluster]")
@click.option("--no-wait", is_flag=True, help="Return as soon as the job is accepted; its id is printed.")
@click.option("--env", "names", multiple=True, metavar="NAME", help="Pass this variable on. Repeatable.")
@click.option("--secret", "secrets", multiple=True, metavar="NAME",
              help="Pass this variable on, sealed: no log or page shows it. Repeatable.")  # fmt: skip
@click.option("--allow-dirty", is_flag=True, help="Upload files that no commit holds.")
@click.option("--max-mib", type=float, default=20.0, show_default=True, help="Largest tree to upload.")
@click.option("--state", type=click.Path(path_type=Path), help="State folder of the local cluster.")
def submit(
    arguments: tuple[str, ...],
    address: str | None,
    no_wait: bool,
    names: tuple[str, ...],
    secrets: tuple[str, ...],
    allow_dirty: bool,
    max_mib: float,
    state: Path | None,
) -> int:
    """Run `unigeoseg ARGUMENTS…` on the cluster, follow its log and end with its exit code.

    The project's files are uploaded without data, runs and environments. Ctrl-C stops following, not the job.
    `stop ID`, `follow ID` and `list` deal with jobs that were submitted.

    \b
    Example:
      unigeoseg submit train --preset quickstart --store stores/synthetic --run first
      unigeoseg submit --no-wait --secret HF_TOKEN train --preset paper --store s3://b/s --run s3://b/r
      unigeoseg submit follow raysubmit_…
      unigeoseg submit stop raysubmit_…
    """
    import logging

    from cluster.submission.client import connect

    logging.getLogger("ray").setLevel(logging.WARNING)  # a line for each step of an upload otherwise

    target, token_file, variables = _target(address, state)
    if arguments[0] in _ACTIONS:
        return _act(connect(target, token_file), target, arguments)
    from cluster.submission.job import Order, take_by_name
    from cluster.submission.job import submit as send
    from cluster.submission.tree import MIB, check_tree, read_tree

    tree = read_tree(Path())
    check_tree(tree, round(max_mib * MIB), allow_dirty)
    command = _command(arguments, local=_is_local(target))
    own = {name: value for name, value in variables.items() if not name.startswith("RAY_")}
    hidden = {name: value for name, value in own.items() if "SECRET" in name or "KEY" in name}
    order = Order(
        command=command,
        tree=tree,
        environment={**{n: v for n, v in own.items() if n not in hidden}, **take_by_name(names)},
        secrets={**hidden, **take_by_name(secrets)},
        metadata={"command": arguments[0]},
    )
    client = connect(target, token_file)
    click.echo(f"uploading {len(tree.files)} files, {tree.size / MIB:.1f} MiB", err=True)
    job = send(client, target, order, token_file)
    if no_wait:
        click.echo(job)
        return 0
    return _follow(client, job)


def _target(address: str | None, state: Path | None) -> tuple[str, str | None, dict[str, str]]:
    """Dashboard URL, token file and variables of the cluster that is meant."""
    given = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    there = read_state(state_folder(state))
    if there is not None and there.ready and given in (None, there.dashboard):
        return there.dashboard, there.token_file, there.environment
    if given is None:
        raise InputError(
            "no cluster to submit to: start one here (unigeoseg cluster up), or give a dashboard's URL with "
            "--address or RAY_API_SERVER_ADDRESS"
        )
    return given.rstrip("/"), None, {}


def _act(client: Any, address: str, arguments: tuple[str, ...]) -> int:
    action, *rest = arguments
    if action == "list":
        for job in client.list_jobs():
            if job.submission_id:
                click.echo(f"{job.submission_id}  {job.status.value:<10} {job.entrypoint}")
        return 0
    if len(rest) != 1:
        raise InputError(f"submit {action} takes one job id; `unigeoseg submit list` shows them")
    if action == "follow":
        return _follow(client, rest[0])
    from cluster.submission.job import stop

    running = stop(client, address, rest[0])
    click.echo(f"{rest[0]} {'stopped' if running else 'had ended before'}", err=True)
    return 0


def _follow(client: Any, job: str) -> int:
    from cluster.submission.follow import Follower

    click.echo(f"job {job}; Ctrl-C stops following, not the job", err=True)
    try:
        code = Follower(client, job).run()
    except KeyboardInterrupt:
        click.echo(
            f"\nthe job goes on; `unigeoseg submit follow {job}` shows it again, "
            f"`unigeoseg submit stop {job}` stops it",
            err=True,
        )
        return 130
    click.echo(f"job {job} ended with exit code {code}", err=True)
    return code


def _is_local(address: str) -> bool:
    return any(f"//{host}:" in address for host in _LOOPBACK)


def _command(arguments: tuple[str, ...], local: bool) -> list[str]:
    """The job's command: paths that mean the same there as here, and a run folder that outlives the job.

    A job runs in a copy of the tree that goes with it, so a relative path is of no use to it.
    """
    given = list(arguments)
    own, first = _FOLDERS.get(given[0], ("", ""))
    if own and not any(text == own or text.startswith(f"{own}=") for text in given):
        given += [own, f"runs/{first}-{time.strftime('%Y%m%d-%H%M%S')}"]
    for place, text in enumerate(given):
        name, sign, value = text.partition("=")
        if sign and name in _PATHS:
            given[place] = f"{name}={_path(name, value, local)}"
        elif place and given[place - 1] in _PATHS:
            given[place] = _path(given[place - 1], text, local)
    return ["python", "-m", "jobs.cli", *given]


def _path(option: str, text: str, local: bool) -> str:
    if "://" in text or Path(text).is_absolute():
        return text
    if not local:
        raise InputError(
            f"{option} {text}: a relative path means nothing on the cluster; give s3://bucket/prefix, or an "
            "absolute path of storage that all its nodes share"
        )
    bare = option == "--run" and "/" not in text and not text.startswith(".")
    return str((Path("runs") / text if bare else Path(text)).absolute())
