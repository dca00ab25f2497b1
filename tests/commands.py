"""The commands of ``kd``, for the tests of all of them."""

from kdcli.cli import Commands


def all_commands(group):
    """Go through all commands, each with its path; this imports them all."""
    for name in group.commands:
        command = group.load(name)
        if isinstance(command, Commands):
            yield from (((name, *path), inner) for path, inner in all_commands(command))
        else:
            yield (name,), command
