"""The examples of every ``--help``, of the README and of the documentation, as they stand there."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from jobs.cli import cli

ROOT = Path(__file__).parents[2]
_COMMAND = re.compile(r"^\s*(?:#.*?: )?(?:\.venv/bin/)?(unigeoseg (?!submit …).*?)(?:\s{2,}#.*)?$")
_INLINE = re.compile(r"`(unigeoseg [^`]+)`")


@dataclass(frozen=True)
class Example:
    """A command line, and where it is shown."""

    where: str
    text: str

    @property
    def words(self) -> list[str]:
        """Its arguments, ``unigeoseg`` left out; what a shell would do with ``>`` is not among them."""
        return shlex.split(self.text.partition(" > ")[0])[1:]


def all_commands(
    group: click.Group = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its path, groups first."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))


def help_examples() -> list[Example]:
    """The indented ``unigeoseg …`` lines of all help texts."""
    found = []
    for path, command in [((), cli), *all_commands()]:
        for line in (command.help or "").splitlines():
            if match := re.match(r"^\s+(unigeoseg .+)$", line):
                found.append(
                    Example(f"unigeoseg {' '.join(path)} --help".replace("  ", " "), match[1].strip())
                )
    return found


def pages() -> list[Path]:
    """The README and the pages of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def page_examples() -> list[Example]:
    """The ``unigeoseg …`` lines of the blocks of code of all pages."""
    found = []
    for page in pages():
        inside = False
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith("```"):
                inside = not inside
            elif inside and (match := _COMMAND.match(line)):
                found.append(Example(page.name, match[1].strip()))
    return found


def page_mentions() -> list[str]:
    """Every ``unigeoseg …`` between backticks on the pages, the alternatives of ``a|b`` each on its own."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages())
    found = []
    for mention in _INLINE.findall(text):
        choices = [""]
        for word in mention.replace("\\|", "|").split():
            options = word.split("|") if re.fullmatch(r"[a-z]+(\|[a-z]+)+", word) else [word]
            choices = [f"{before} {option}".strip() for before in choices for option in options]
        found += choices
    return found
