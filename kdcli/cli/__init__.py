"""``kd``: the commands, and what is common to all of them.

Each command module holds an ``app``; it imports nothing at its top that ``kd --help`` should not pay for.
"""

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
from kdcli.cli import (
    bench,
    data,
    doctor,
    export,
    join,
    plugins,
    predict,
    profile,
    report,
    run_all,
    student,
    teacher,
    transfer,
    ui,
)
from kdcli.cli import eval as eval_
from kdcli.cli.flags import example, switch
from kdcli.cli.global_flags import GLOBAL, to_front, values_of
from kdcli.config.validation import nearest
from kdcli.errors import KdError, UsageError
from kdcli.registry import code_files

INTERRUPTED = 130

app = typer.Typer(
    name="kd",
    help="Distil a large fine-tuned text classifier into a BiLSTM some 400 times faster.",
    epilog=example("kd run-all"),
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    invoke_without_command=True,
)
for module in (
    run_all,
    transfer,
    teacher,
    join,
    student,
    predict,
    eval_,
    bench,
    export,
    report,
    data,
    profile,
    plugins,
    doctor,
):
    app.add_typer(module.app)


@app.callback()
def kd(
    quiet: Annotated[bool, switch("--quiet", "-q", help="Warnings and errors alone.")] = False,
    verbose: Annotated[bool, switch("--verbose", "-v", help="Each point of the learning curves too.")] = False,
    debug: Annotated[bool, switch("--debug", help="Tracebacks.")] = False,
    json: Annotated[bool, switch("--json", help="The result as one JSON object, errors too.")] = False,
    no_color: Annotated[bool, switch("--no-color", help="No colours.")] = False,
    no_progress: Annotated[bool, switch("--no-progress", help="No progress.")] = False,
    code: Annotated[
        list[Path] | None,
        typer.Option("--code", help="A plugin that is a file, not installed. Repeat it.", metavar="FILE.py"),
    ] = None,
    version: Annotated[bool, switch("--version", "-V", help="Print the version.")] = False,
) -> None:
    """Describe the global flags: ``run`` has acted on them already, since an error may come before this."""
    if version:
        ui.show({"version": __version__}, lambda _: f"kd {__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """Run ``kd`` on the command line and leave with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run ``kd``.

    Args:
        arguments: The command line after ``kd``.

    Returns:
        The exit code.
    """
    command = get_command(app)
    flags, rest = to_front(command, arguments)
    asked = {GLOBAL[flag] for flag in flags if flag in GLOBAL} - {"version"}
    ui.configure(ui.Wishes(**dict.fromkeys(asked, True)))
    try:
        code_files.use(values_of("--code", flags))
        # The bare name asks for help; Typer's own way to that would import more.
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
        # Typer leaves so after completion, and Rich when nobody reads its help any more (``kd --help | head -1``).
        return int(left.code or 0) if "_KD_COMPLETE" in os.environ else 0
    except Exception as error:
        if hasattr(error, "format_message"):  # Typer's own: the line makes no sense
            return ui.fail(_usage(error), error)
        return _unexpected(error)


def _unexpected(error: BaseException) -> int:
    what = f"unexpected {type(error).__name__}: {error}"
    return ui.fail(KdError(what, hint="run it again with --debug and report what it prints"), error)


def _interrupted() -> int:
    error = KdError("interrupted", hint="run the same command again to go on from here")
    error.exit_code = INTERRUPTED
    return ui.fail(error)


def _usage(error: Exception) -> UsageError:
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".").replace("Value error, ", "")  # type: ignore[attr-defined]
    hint = f"`{context.command_path if context else 'kd'} --help` shows what it takes"
    given, _, choices = message.partition("' is not one of ")
    if close := nearest(given.rpartition("'")[2], re.findall(r"'([^']+)'", choices)):
        hint = f"did you mean {close}?"
    return UsageError(message[:1].lower() + message[1:], hint=hint)
