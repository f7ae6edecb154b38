"""The command line with every command loaded: what is imported only when it is called would be left out."""

import click

from jobs.cli import cli


def _whole(group: click.Group, name: str) -> click.Group:
    context = click.Context(group, info_name=name)
    commands: dict[str, click.Command] = {}
    for inner in group.list_commands(context):
        command = group.get_command(context, inner)
        assert command is not None
        commands[inner] = _whole(command, inner) if isinstance(command, click.Group) else command
    return click.Group(name, commands=commands, help=group.help, params=group.params)


whole_cli = _whole(cli, "unigeoseg")
