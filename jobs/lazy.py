"""A click group whose commands are imported when they run, so that help and light commands are quick."""

from dataclasses import dataclass
from importlib import import_module

import click


@dataclass(frozen=True)
class Entry:
    """Where a command lives and what the help says about it."""

    module: str
    attribute: str
    help: str

    def load(self) -> click.Command:
        """Import the command; ``attribute`` may reach into a group (``"data.build"``)."""
        name, *rest = self.attribute.split(".")
        command: click.Command = getattr(import_module(self.module), name)
        for part in rest:
            assert isinstance(command, click.Group)
            command = command.commands[part]
        return command


class LazyGroup(click.Group):
    """A group over a table of :class:`Entry`."""

    def __init__(self, *args: object, entries: dict[str, Entry] | None = None, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.entries = entries or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table, which is the order of use."""
        return [*self.entries, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of that name."""
        entry = self.entries.get(cmd_name)
        return entry.load() if entry else super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse an unknown name with the nearest one."""
        name = args[0]
        if name not in self.list_commands(ctx) and not name.startswith("-"):
            from jobs.explain import nearest

            names = self.list_commands(ctx)
            close = nearest(name, names)
            hint = f"did you mean {close}? " if close else ""
            ctx.fail(f"no command {name}; {hint}There are {', '.join(names)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        rows = [(name, entry.help) for name, entry in self.entries.items()]
        rows += [(name, command.get_short_help_str()) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
