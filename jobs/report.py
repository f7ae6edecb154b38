"""``unigeoseg report``: the report of a run, drawn again."""

import click

from jobs.options import emit, json_option


@click.command()
@click.argument("run", metavar="RUN")
@json_option
def report(run: str, as_json: bool) -> None:
    """Draw a run's curves again and write its report.html, also while it still trains.

    \b
    unigeoseg report runs/quickstart
    """
    from pipelines.evaluate.report import write_report

    emit({"report": write_report(run)}, as_json, lambda r: str(r["report"]))
