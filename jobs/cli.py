"""The ``unigeoseg`` command: its tree, and what becomes of errors.

Exit codes: 0 success, 2 wrong usage or input, 1 failure, 130 interrupted.
"""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from cluster.submission.redaction import guard_this_process
from jobs.lazy import Entry, LazyGroup
from pipelines.storage.secrets import hide, keep_out_of_logs
from unigeoseg.errors import UserError

_DATA = {
    "build": Entry("jobs.data", "data.build", "Make a store from a source."),
    "sources": Entry("jobs.data_sources", "sources", "List the data sets that can be built, or show one."),
    "unpack": Entry("jobs.data_sources", "unpack", "Unpack a downloaded archive safely."),
    "info": Entry("jobs.data", "data.info", "Print a store's card."),
    "lint": Entry("jobs.data", "data.lint", "Check every record of a store."),
    "stats": Entry("jobs.data_look", "stats", "Count and draw what a store holds."),
    "preview": Entry("jobs.data_look", "preview", "Draw samples of a store with their masks."),
    "report": Entry("jobs.data_look", "report", "Write one page about a store."),
    "merge": Entry("jobs.data_store", "merge", "Make one store of several."),
    "export": Entry("jobs.data_store", "export", "Write a store as WebDataset, COCO or the release layout."),
    "trace": Entry("jobs.trace", "trace", "Print the samples of each step and rank, from the plan alone."),
    "stream": Entry("jobs.trace", "stream", "The same from really streaming, with statistics."),
}
_MODEL = {
    "info": Entry("jobs.model", "info", "Count the parameters by module."),
    "verify": Entry("jobs.model", "verify", "Compare released mode with reference outputs."),
}
_COMMANDS = {
    "quickstart": Entry("jobs.quickstart", "quickstart", "Build, train, evaluate and report at small size."),
    "plan": Entry("jobs.plan", "plan", "Show steps, epochs and task shares before training."),
    "train": Entry("jobs.train", "train", "Train a model on a store, or resume."),
    "simulate": Entry("jobs.simulate", "simulate", "Simulate lost nodes at any cluster size."),
    "resume": Entry("jobs.runs", "resume", "Go on with a run that ended early."),
    "runs": Entry("jobs.runs", "runs", "List runs and their state."),
    "evaluate": Entry("jobs.evaluate", "evaluate", "Score a model on a store."),
    "weights": Entry("jobs.weights", "weights", "List, show and fetch pretrained weights."),
    "predict": Entry("jobs.predict", "predict", "Segment images by text, question, box or points."),
    "map": Entry("jobs.map", "map_group", "Map whole rasters: masks and objects for a GIS."),
    "app": Entry("jobs.app", "app", "Open a page to try a model and look at results."),
    "serve": Entry("jobs.serve", "serve", "Answer instructions over HTTP."),
    "bench": Entry("jobs.bench", "bench", "Measure the parts on this machine."),
    "export": Entry("jobs.export", "export", "Write a model in another layout."),
    "cluster": Entry("jobs.cluster", "cluster", "Run a whole cluster on this machine; check cluster files."),
    "submit": Entry("jobs.submit", "submit", "Run a command as a job on a cluster."),
    "ablate": Entry("jobs.ablate", "ablate", "Run one of the paper's ablation tables."),
    "sweep": Entry("jobs.sweep", "sweep", "Search settings with Ray Tune."),
    "compare": Entry("jobs.compare", "compare", "Put runs side by side."),
    "register": Entry("jobs.register", "register", "Register a run's model in MLflow."),
    "report": Entry("jobs.report", "report", "Write a run's report.html and pictures anew."),
}
_DEBUG = "UNIGEOSEG_DEBUG"


@click.group(cls=LazyGroup, entries=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks and debug logs (also UNIGEOSEG_DEBUG=1).")
@click.version_option(package_name="unigeoseg")
def cli(debug: bool) -> None:
    """Train and use UniGeoSeg: instruction-driven segmentation of aerial and satellite imagery.

    \b
    Example:
      unigeoseg data build --source synthetic --out stores/synthetic
      unigeoseg train --preset quickstart --store stores/synthetic
    """
    if debug:
        os.environ[_DEBUG] = "1"


@cli.group(cls=LazyGroup, entries=_DATA)
def data() -> None:
    """Make, check and look at stores.

    \b
    Example:
      unigeoseg data info stores/synthetic --json
    """


@cli.group(cls=LazyGroup, entries=_MODEL)
def model() -> None:
    """Look at a model.

    \b
    Example:
      unigeoseg model info --preset paper
    """


def run(command: click.Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command, turn errors into one message and an exit code, and leave the process.

    ``--debug`` may stand anywhere in ``arguments`` before a bare ``--``.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    if "--debug" in given[:end]:
        os.environ[_DEBUG] = "1"
        given = [text for text in given[:end] if text != "--debug"] + given[end:]
    guard_this_process()
    _configure_logging()
    name = None if command is not cli else "unigeoseg"
    try:
        code = command.main(args=given, prog_name=name, standalone_mode=False)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        sys.exit(_report(error))
    sys.exit(code if isinstance(code, int) and not isinstance(code, bool) else 0)


def main() -> NoReturn:
    """The console script."""
    run(cli)


def user_error(error: BaseException) -> UserError | None:
    """The :class:`UserError` in ``error`` or at the bottom of what Ray wrapped around it."""
    found: UserError | None = None
    pending: list[BaseException] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, UserError):
            found = current
        failures = getattr(current, "worker_failures", None)
        inner = [getattr(current, "cause", None), current.__cause__]
        inner += list(failures.values()) if isinstance(failures, dict) else []
        pending += [item for item in inner if isinstance(item, BaseException)]
    return found


def _report(error: Exception) -> int:
    debug = os.environ.get(_DEBUG) == "1"
    if debug:
        click.echo(hide("".join(traceback.format_exception(error))), err=True)
    wrong_input = user_error(error)
    if wrong_input is not None:
        click.echo(hide(f"error: {wrong_input}"), err=True)
        return 2
    hint = "" if debug else " (rerun with --debug for the traceback)"
    text = " ".join(str(error).split()) or "no message"
    click.echo(hide(f"failed: {type(error).__name__}: {text}{hint}"), err=True)
    return 1


def _configure_logging() -> None:
    debug = os.environ.get(_DEBUG) == "1"
    keep_out_of_logs()
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for name in ("unigeoseg", "pipelines", "jobs"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.INFO)


if __name__ == "__main__":
    main()
