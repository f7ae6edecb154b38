"""``unigeoseg cluster``: a whole cluster on this machine, for trying what will run on a real one."""

import json
from pathlib import Path
from typing import Any

import click

from cluster.errors import InputError
from jobs.cluster_check import check
from jobs.options import emit, json_option

_LOOPBACK = ("127.0.0.1", "localhost")
state_option = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that remembers the cluster. [UNIGEOSEG_CLUSTER_STATE, else runs/.cluster]",
)


@click.group()
def cluster() -> None:
    """Run Ray head and workers, MLflow and an S3 server on this machine; check files for other clusters.

    \b
    Example:
      unigeoseg cluster up --workers 2
      unigeoseg submit train --preset quickstart --store stores/synthetic --run first
      unigeoseg cluster down
    """


cluster.add_command(check)


@cluster.command()
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Raylets.")
@click.option("--cpus", type=click.IntRange(1), default=1, show_default=True, help="CPUs of each worker.")
@click.option("--memory", type=click.IntRange(80), default=200, show_default=True, metavar="MIB",
              help="Object store of each node.")  # fmt: skip
@click.option(
    "--resources", default="{}", metavar="JSON", help='Custom ones of each worker: {"accelerator": 1}.'
)
@click.option("--s3/--no-s3", default=True, show_default=True, help="A development S3 server.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Dashboard and MLflow listen here.")
@click.option("--data", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
              help="Folder of MLflow's database and artifacts, which outlive the cluster.")  # fmt: skip
@click.option(
    "--database",
    type=click.Choice(["auto", "postgresql", "sqlite"]),
    default="auto",
    show_default=True,
    help="Of MLflow; auto takes PostgreSQL where it can run and no SQLite file is in use.",
)
@click.option("--groups", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Let the autoscaler start and stop the node groups of this cluster file here, instead of "
              "--workers.")  # fmt: skip
@click.option("--idle-minutes", type=float, default=1.0, show_default=True,
              help="With --groups: a node without work goes after this long.")  # fmt: skip
@state_option
@json_option
def up(
    workers: int,
    cpus: int,
    memory: int,
    resources: str,
    s3: bool,
    host: str,
    data: Path,
    database: str,
    groups: Path | None,
    idle_minutes: float,
    state: Path | None,
    as_json: bool,
) -> None:
    """Start it all on loopback, with generated credentials and free ports.

    \b
    Example:
      unigeoseg cluster up --workers 2 --cpus 1
      unigeoseg cluster up --groups ray_cluster.yaml
    """
    from cluster.local.cluster import Wishes
    from cluster.local.cluster import up as start
    from cluster.local.state import state_folder

    if host not in _LOOPBACK:
        click.echo(
            f"warning: dashboard and MLflow will listen on {host}: who reaches that address and, for the "
            "dashboard, has the token, runs what he likes here; MLflow asks nobody for a password",
            err=True,
        )
    wishes = Wishes(
        workers=0 if groups else workers,
        cpus=cpus,
        memory=memory * 2**20,
        host=host,
        s3=s3,
        data=data,
        database=database,
        resources=_resources(resources),
        groups=groups,
        idle_minutes=idle_minutes,
    )
    folder = state_folder(state)
    made = start(folder, wishes, lambda text: click.echo(text, err=True))
    result = {
        "address": made.gcs,
        "dashboard": made.dashboard,
        "mlflow": made.mlflow,
        "s3": made.s3,
        "bucket": made.bucket,
        "workers": made.workers,
        "groups": str(groups) if groups else None,
        "environment_file": str(folder / "environment"),
        "state": str(folder),
    }
    emit(result, as_json, _up_text)


@cluster.command()
@state_option
@json_option
def status(state: Path | None, as_json: bool) -> None:
    """Show nodes, services and jobs.

    \b
    Example:
      unigeoseg cluster status --json
    """
    from cluster.local.cluster import status as look
    from cluster.local.state import state_folder

    emit(look(state_folder(state)), as_json, _status_text)


@cluster.command()
@click.option("--force", is_flag=True, help="Do not ask, even when a job runs.")
@state_option
@json_option
def down(force: bool, state: Path | None, as_json: bool) -> None:
    """Stop every process of the cluster and remove the files that it made; all others stay.

    Run folders, MLflow's data and whatever else lies in the folder of --state are not touched.

    \b
    Example:
      unigeoseg cluster down --force
    """
    from cluster.local.cluster import down as stop
    from cluster.local.cluster import running_jobs
    from cluster.local.state import state_folder

    folder = state_folder(state)
    jobs = [] if force else running_jobs(folder)
    if jobs:
        import sys

        question = f"{len(jobs)} job(s) still run ({', '.join(jobs)})"
        if not sys.stdin.isatty():
            raise InputError(f"{question}; stop them with `unigeoseg submit stop ID`, or give --force")
        click.confirm(f"{question}. Stop the cluster all the same?", abort=True, err=True)
    ended = stop(folder)
    emit(
        {"stopped": True, "processes": ended}, as_json, lambda r: f"stopped, {r['processes']} processes ended"
    )


def _resources(text: str) -> dict[str, float]:
    try:
        content = json.loads(text)
        return {str(name): float(amount) for name, amount in content.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f'--resources {text}: expected JSON such as {{"accelerator": 1}}') from error


def _up_text(result: dict[str, Any]) -> str:
    groups = result["groups"]
    nodes = f"grows to the groups of {groups}" if groups else f"{result['workers']} workers"
    s3 = f"S3         {result['s3']}  ({result['bucket']})\n" if result["s3"] else ""
    return (
        f"Ray        {result['address']}  ({nodes})\n"
        f"dashboard  {result['dashboard']}\n"
        f"MLflow     {result['mlflow']}\n{s3}"
        f"variables  source {result['environment_file']}   (holds generated secrets)\n"
        "`unigeoseg submit …` finds it by itself; `unigeoseg cluster down` stops it"
    )


def _status_text(result: dict[str, Any]) -> str:
    if not result["running"]:
        if result["starting"]:
            return "a cluster is being started by another `unigeoseg cluster up`"
        stale = "; one has died: `unigeoseg cluster down` clears it away" if result["stale"] else ""
        return f"no cluster runs{stale}"
    lines = [f"Ray {result['address']}, dashboard {result['dashboard']}, MLflow {result['mlflow']}"]
    if result["s3"]:
        lines.append(f"S3 {result['s3']}, {result['bucket']}")
    lines.append(f"Prometheus targets {result['metrics']}")
    for node in result["nodes"]:
        kind, life = ("head" if node["head"] else "worker"), ("alive" if node["alive"] else "dead")
        offers = ", ".join(f"{name} {amount:g}" for name, amount in sorted(node["resources"].items())
                           if not name.startswith("node:") and "memory" not in name)  # fmt: skip
        lines.append(f"{kind:<7}{life:<6}{node['id'][:12]}  {offers}")
    lines += [f"job {job['id']}  {job['status']}  {job['entrypoint']}" for job in result["jobs"]]
    return "\n".join([*lines, f"{result['processes']} processes"])
