"""Global flags, wherever they stand on the line: Typer takes them before the sub-command alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdcli.errors import UsageError

GLOBAL = {
    "-q": "quiet",
    "--quiet": "quiet",
    "-v": "verbose",
    "--verbose": "verbose",
    "--debug": "debug",
    "--json": "json",
    "--no-color": "no_color",
    "--no-progress": "no_progress",
    "-V": "version",
    "--version": "version",
}
"""The name of each global flag; ``-h`` is none, since it asks about the command before it."""
WITH_VALUE = ("--code",)
"""Global options, which take a value: the next argument, or what follows ``=``."""


def to_front(command: Any, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the global flags from the rest of the line.

    What follows ``--`` is left alone, and so is the value of another option, whatever it looks like.

    Args:
        command: The root command, as ``typer.main.get_command`` gives it.
        arguments: The line after the program's name.

    Returns:
        The global flags (an option as ``--option=value``) and all the rest, each in its order.
    """
    flags: list[str] = []
    rest: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            return flags, [*rest, argument, *left]
        if argument in GLOBAL:
            flags.append(argument)
        elif argument.partition("=")[0] in WITH_VALUE:
            flags.append(argument if "=" in argument else f"{argument}={left.pop(0) if left else ''}")
        elif argument.startswith("--"):
            rest.append(argument)
            if "=" not in argument and _takes_value(command, argument):
                rest += left[:1]
                del left[:1]
        elif argument.startswith("-") and len(argument) > 1:
            kept, wants_value = _short(command, argument, flags)
            rest += kept
            if wants_value:
                rest += left[:1]
                del left[:1]
        else:
            rest.append(argument)
            command = getattr(command, "commands", {}).get(argument, command)
    return flags, rest


def values_of(option: str, flags: Sequence[str]) -> list[str]:
    """Return the values that an option has among the global flags, as ``to_front`` gives them.

    Raises:
        UsageError: One is empty, or there is none.
    """
    values = [flag.removeprefix(f"{option}=") for flag in flags if flag.startswith(f"{option}=")]
    if "" in values:
        raise UsageError(f"{option} needs a value", hint="`kd --help` shows what it takes")
    return values


def _short(command: Any, argument: str, flags: list[str]) -> tuple[list[str], bool]:
    """Take the global flags out of joined short ones (``-fq``).

    Returns:
        What is left of the argument, and whether the next one is its value.
    """
    kept = ""
    letters = argument[1:]
    for place, letter in enumerate(letters):
        flag = f"-{letter}"
        if flag in GLOBAL:
            flags.append(flag)
        elif _takes_value(command, flag):
            return [f"-{kept}{letters[place:]}"], place == len(letters) - 1
        else:
            kept += letter
    return ([f"-{kept}"] if kept else []), False


def _takes_value(command: Any, flag: str) -> bool:
    options = [option for option in command.params if flag in option.opts]
    return any(not (option.is_flag or option.count) for option in options)
