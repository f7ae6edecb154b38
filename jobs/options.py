"""Options that the commands share, and the one way to print a result."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from pipelines.storage.secrets import hide
from unigeoseg.errors import UserError

_Function = TypeVar("_Function", bound=Callable[..., Any])
_results: list[TextIO] = []


def _option(*names: str, **defaults: Any) -> Callable[..., Any]:
    """A click option usable as ``@name`` and, with changed attributes, as ``@name(required=True)``."""

    def decorator(function: Callable[..., Any] | None = None, /, **changes: Any) -> Any:
        wrap = click.option(*names, **{**defaults, **changes})
        return wrap if function is None else wrap(function)

    return decorator


def _keep_stdout_clean(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    if value:
        context.with_resource(result_only_stdout())
    return value


#: ``--preset``, parameter ``preset``.
preset_option = _option(
    "--preset",
    required=True,
    metavar="NAME|FILE",
    help="Preset of the configuration: a name from jobs/presets or a YAML file.",
)
#: ``--set a.b=value`` (any number), parameter ``sets``.
set_option = _option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one value, for example --set train.lr=3e-4. Repeatable.",
)
#: ``--json``, parameter ``as_json``; keeps stdout for the document.
json_option = _option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,
    callback=_keep_stdout_clean,
    help="Print one JSON document on stdout; everything else goes to stderr.",
)
#: ``--threshold``, parameter ``threshold``.
threshold_option = _option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=None,
    show_default="the model's own",
    help="Probability above which a pixel belongs to the mask, between 0 and 1.",
)
#: ``--device``, parameter ``device``.
device_option = _option(
    "--device", metavar="NAME", help="Such as cpu or cuda:1; default: a GPU where there is one."
)


def resource_options(of: str) -> list[Callable[[Any], Any]]:
    """``--cpus-per-OF`` and ``--gpus-per-OF``, parameters ``cpus`` and ``gpus``: what one occupies in Ray."""
    return [
        click.option(
            f"--cpus-per-{of}",
            "cpus",
            type=click.FloatRange(0, min_open=True),
            default=1,
            show_default=True,
            help=f"Of each {of}, and its threads.",
        ),
        click.option(
            f"--gpus-per-{of}",
            "gpus",
            type=click.FloatRange(0),
            default=0,
            show_default=True,
            help=f"Of each {of}.",
        ),
    ]


def with_options(command: Callable[..., None], options: Sequence[Callable[..., Any]]) -> Callable[..., None]:
    """A command with options that several have, in their order."""
    for option in reversed(options):
        command = option(command)
    return command


#: ``--turn`` and ``--no-turn``, parameter ``turn``; builds have it as ``source.turn``.
turn_option = _option(
    "--turn/--no-turn",
    default=True,
    show_default=True,
    help="Turn pictures as their EXIF orientation says, or take them as they are stored.",
)
#: ``--dry-run``, parameter ``dry_run``.
dry_run_option = _option(
    "--dry-run", is_flag=True, help="Check the input, say what would be done, and do nothing."
)
#: ``--print-config``, parameter ``print_config``.
print_config_option = _option(
    "--print-config", is_flag=True, help="Print the effective configuration as YAML and stop."
)


class _LocalFolder(click.Path):
    """A folder of a file system; Python's paths would turn ``s3://b`` into a folder ``s3:``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            name = param.opts[0] if param else "path"
            raise UserError(f"{name} {value}: give a folder, on a cluster one that all its nodes share")
        return super().convert(value, param, ctx)


#: Type of an option whose folder cannot be in an object store.
LOCAL_FOLDER = _LocalFolder(path_type=Path, file_okay=False)


def emit(result: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], str] | None = None) -> None:
    """Print a command's result, without passwords in URIs.

    Args:
        result: what ``--json`` prints, as it stands.
        as_json: whether the caller asked for JSON.
        text: makes the text for people; None prints the JSON indented.
    """
    if as_json:
        stream = _results[-1] if _results else sys.stdout
        stream.write(hide(json.dumps(result, ensure_ascii=False, allow_nan=False, default=_plain)) + "\n")
        stream.flush()
    else:
        shown = text(result) if text else json.dumps(result, ensure_ascii=False, indent=2, default=_plain)
        click.echo(hide(shown))


@contextmanager
def result_only_stdout() -> Iterator[None]:
    """Send all output to stderr, that of libraries and child processes too, except :func:`emit`'s JSON."""
    stdout = sys.stdout
    stdout.flush()
    try:
        descriptor = stdout.fileno()
    except (OSError, ValueError):  # a test's stand-in has no descriptor
        descriptor = -1
    if descriptor < 0:
        sys.stdout = sys.stderr
        _results.append(stdout)
        try:
            yield
        finally:
            _results.pop()
            sys.stdout = stdout
        return
    saved = os.dup(descriptor)
    os.dup2(2, descriptor)
    with os.fdopen(saved, "w", encoding="utf-8", closefd=False) as stream:
        _results.append(stream)
        try:
            yield
        finally:
            _results.pop()
            stdout.flush()
            stream.flush()
            os.dup2(saved, descriptor)
            os.close(saved)


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays, paths."""
    for name in ("tolist", "item"):
        if hasattr(value, name):
            return getattr(value, name)()
    return str(value)


def count_range(text: str, option: str) -> tuple[int, int]:
    """Fewest and most of something, from a number or two such as ``1-8``; (0, 0) from 0.

    Raises:
        click.UsageError: it is neither.
    """
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text.strip())
    fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if fewest > most or (most and not fewest):
        raise click.UsageError(f"{option} {text}: give a number, or two such as 1-8, the smaller first")
    return fewest, most


def numbers(text: str | None, option: str) -> Any:
    """Comma-separated numbers as a tuple, or ``None``.

    Raises:
        click.UsageError: they are none.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.UsageError(f"{option} {text}: give numbers with commas") from error
