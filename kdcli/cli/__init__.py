"""``kd``: the command line, its errors and exit codes. A command is imported only when it is chosen."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from traceback import walk_tb
from typing import Annotated, NoReturn

import typer
from typer.main import get_command

from kdcli import __version__
from kdcli.cli import ui
from kdcli.cli.commands import CONTEXT, GLOBAL, Commands, to_front
from kdcli.errors import KdError, UsageError

INTERRUPTED = 130

app = typer.Typer(
    name="kd",
    cls=Commands,
    help="Distil a large fine-tuned text classifier into a BiLSTM some 400 times faster.",
    epilog="[bold]Example[/bold]  kd run-all",
    context_settings=CONTEXT,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    invoke_without_command=True,
)


@app.callback()
def kd(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings and errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print the learning curves too.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, errors too.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress.")] = False,
    code: Annotated[
        list[Path] | None,
        typer.Option("--code", help="Load a plugin from a file. Repeat it.", metavar="FILE.py"),
    ] = None,
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.")] = False,
) -> None:
    """Add the plugins of ``--code``. ``run`` applies the other flags, since an error may occur before this."""
    if code:
        from kdcli.registry.plugin import use

        if Path() in code:
            raise UsageError("--code needs a value", hint="`kd --help` shows what it takes")
        use(code)
    if version:
        ui.show({"version": __version__}, lambda _: f"kd {__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """Run ``kd`` on the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run ``kd`` with the arguments after its name, and return the exit code."""
    command = get_command(app)
    try:
        flags, rest = to_front(command, arguments)
        names = {GLOBAL[flag] for flag in flags if flag in GLOBAL} - {"version"}
        ui.configure(ui.Output(**dict.fromkeys(names, True)))
        # ``kd`` alone shows the help; Typer's own option for that imports more.
        code = command.main([*flags, *rest] or ["--help"], prog_name="kd", standalone_mode=False)
        return _interrupted() if code == INTERRUPTED else int(code or 0)
    except KdError as error:
        return ui.fail(error, error)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except SystemExit as left:
        *_, (frame, _) = walk_tb(left.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in ("typer", "rich"):
            return _unexpected(left)
        # Typer exits so after completion, and Rich when the reader of its help has gone (``kd --help | head -1``).
        return int(left.code or 0) if "_KD_COMPLETE" in os.environ else 0
    except Exception as error:
        if hasattr(error, "format_message"):  # Typer's own: wrong usage
            return ui.fail(_usage(error), error)
        return _unexpected(error)


def _unexpected(error: BaseException) -> int:
    what = f"unexpected {type(error).__name__}: {error}"
    return ui.fail(KdError(what, hint="run it again with --debug and report what it prints"), error)


def _interrupted() -> int:
    error = KdError("interrupted", hint="run the same command again to continue from here")
    error.exit_code = INTERRUPTED
    return ui.fail(error)


def _usage(error: Exception) -> UsageError:
    from kdcli.config.validation import nearest

    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".").replace("Value error, ", "")  # type: ignore[attr-defined]
    hint = f"`{context.command_path if context else 'kd'} --help` shows what it takes"
    typed, _, choices = message.partition("' is not one of ")
    if close := nearest(typed.rpartition("'")[2], re.findall(r"'([^']+)'", choices)):
        hint = f"did you mean {close}?"
    return UsageError(message[:1].lower() + message[1:], hint=hint)
