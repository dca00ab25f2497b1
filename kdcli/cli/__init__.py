"""``kd``: the command line, its table of commands, errors and exit codes. A command is imported when it is chosen."""

import builtins
import gc
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from traceback import walk_tb
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from kdcli import __version__
from kdcli.cli import ui
from kdcli.cli.progress import stop_spinner
from kdcli.errors import DataError, KdError, UsageError

TABLE = {
    "distil": "Distil a classifier that you have into a student: its texts need no labels.",
    "run-all": "Run all stages: transfer set, teacher, logits, join, student, baseline, results, report.",
    "transfer": "Make a transfer set: many unlabelled texts that look like the task's.",
    "transfer lite": "Fabricate texts by rules: mask words, swap words of one part of speech, keep an n-gram.",
    "transfer heavy": "Sample texts from a language model that is fine-tuned on the task's texts.",
    "transfer corpus": "Take unlabelled texts of your own, without duplicates, those nearest to the task first.",
    "teacher": "Fine-tune the teacher; export its logits for the transfer set.",
    "teacher train": "Fine-tune an encoder on the labelled texts; the best checkpoint on dev is kept.",
    "teacher export": "Export the teacher's logits for each text of the transfer set.",
    "teacher audit": "Compare a teacher with gold labels: scores, each class, texts without an answer.",
    "join": "Join the teacher's logits to the transfer set, by hash of the text.",
    "student": "Distil the joined set into a student; the best checkpoint on dev is kept.",
    "predict": "Predict a label, or a score, for each text.",
    "explain": "Show which words made a student decide so.",
    "eval": "Score a student on labelled texts, with intervals, confusion, calibration and tests.",
    "serve": "Serve a student over HTTP: predict, explain, health, metrics, a web page.",
    "bench": "Time the student (PyTorch, NumPy, ONNX, int8) and the teacher on the same texts.",
    "export": "Export a student as ONNX, as a web page, as one file that predicts, or for the Hugging Face Hub.",
    "export onnx": "Write a student as ONNX graphs, in float32 and 8 bits; onnxruntime and tokenizers run them.",
    "export web": "Write a student as a web page that runs it in the browser, a folder or a single file.",
    "export binary": "Write a student as one file that predicts: it needs Python, and nothing else.",
    "export hub-folder": "Write a student as a folder for the Hugging Face Hub, with a filled model card.",
    "report": "Write one HTML page of a run: results, curves, transfer set, disagreements, settings.",
    "data": "Tasks, word vectors and transfer sets: list, get and check them.",
    "data list": "List what kd can get, from where, and what is here already.",
    "data get": "Get a task's tables, word vectors or transfer sets, as files for the other commands.",
    "data check": "Describe a task's tables: rows, labels, lengths, repeated and odd texts, overlaps.",
    "profile": "The settings of a run: list, show, copy and check profiles.",
    "profile list": "List the profiles that come with kd, and the purpose of each.",
    "profile show": "Show a profile as it is written, or every setting with its origin, or its meaning.",
    "profile copy": "Copy a profile to a file of your own, to change it there.",
    "profile check": "Check a profile, and its tables where they are there: every wrong key is reported at once.",
    "plugins": "Students, teachers, generators and taggers: list, show, check and write plugins.",
    "plugins list": "List the installed plugins, without importing them.",
    "plugins show": "Show a plugin: its origin, its abilities and its options.",
    "plugins check": "Check a plugin against its contract; the exit code is 5 if a check has failed.",
    "plugins new": "Write a working plugin, a package with tests, that you change into your own.",
    "doctor": "Check Python, packages, machine, devices and plugins.",
}
"""The help line of each command and group; ``transfer lite`` is the function ``lite`` of ``kdcli.cli.transfer``."""
PANELS = {
    "Distil": ("distil", "run-all", "transfer", "teacher", "join", "student"),
    "Use a student": ("predict", "explain", "eval", "serve", "bench", "export", "report"),
    "Profiles, data, plugins": ("data", "profile", "plugins", "doctor"),
}
CONTEXT = {"help_option_names": ["-h", "--help"]}

GLOBAL = {
    **{"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose", "--debug": "debug"},
    **{"--json": "json", "--no-color": "no_color", "--no-progress": "no_progress"},
    **{"-V": "version", "--version": "version"},
}
"""The name of each global flag. ``-h`` is not global: it asks about the command before it."""
CODE = "--code"  # the global option with a value: the next argument, or what follows ``=``
INTERRUPTED = 130
OTHER_NAMES = {
    **{"workspace": "run-dir", "out": "output", "output-dir": "output", "learning-rate": "lr", "steps": "max-steps"},
    **{"num-train-epochs": "epochs", "max-seq-length": "max-length", "alpha": "kd-weight", "model": "student"},
    **{"train-batch-size": "batch-size", "per-device-train-batch-size": "batch-size"},
}
"""What other programs call some of our options."""


class Help:
    """Help as ours, without types in brackets, ranges, and the name that a switch which is off does not need."""

    def format_help(self: Any, ctx: Any, formatter: Any) -> None:
        """Print the help; the options are not used after that."""
        for option in self.get_params(ctx):
            option._get_number_range_help_str = lambda: None
            if isinstance(option.show_default, str):
                option._get_default_string = lambda shown=option.show_default, **_: shown
            if option.param_type_name == "argument":
                option.display_type_rich = lambda ctx: None
            elif option.is_flag:
                option.metavar, option.secondary_opts = "", second_names(option)
        super().format_help(ctx, formatter)  # type: ignore[misc]

    def collect_usage_pieces(self: Any, ctx: Any) -> list[str]:
        """Return the parts of the usage line, without braces around what is required."""
        return [piece.strip("{}").replace("}...", "...") for piece in super().collect_usage_pieces(ctx)]  # type: ignore[misc]


def second_names(option: Any) -> list[str]:
    """Return the ``--no-x`` of a switch where the help shows it: not of one that is off."""
    return [] if option.default is False else list(option.secondary_opts)


class SingleCommand(Help, TyperCommand):
    """A command."""


class Commands(Help, TyperGroup):
    """A group that holds the help lines of its commands, and imports a command when it is chosen."""

    def __init__(self, *, name: str | None = None, path: str = "", **more: Any) -> None:
        super().__init__(name=name, **more)
        self.path = path
        self._loaded: dict[str, Any] = {}
        for known, help in TABLE.items():
            parent, _, last = known.rpartition(" ")
            if parent == path:
                panel = next((panel for panel, names in PANELS.items() if known in names), None)
                stub: dict[str, Any] = {"help": help, "rich_help_panel": panel, "context_settings": CONTEXT}
                is_group = any(other.startswith(f"{known} ") for other in TABLE)
                self.commands[last] = (
                    Commands(name=last, path=known, **stub) if is_group else SingleCommand(last, **stub)
                )

    def load(self, name: str) -> Any:
        """Return a command with its options."""
        if isinstance(self.commands[name], Commands):
            return self.commands[name]
        if name not in self._loaded:
            path = f"{self.path} {name}".strip()
            module, function = (word.replace("-", "_") for word in (path.partition(" ")[0], name))
            function += "_" if hasattr(builtins, function) else ""
            command = getattr(import_module(f"kdcli.cli.{module}"), function)
            self._loaded[name] = command.build(name, TABLE[path])
        return self._loaded[name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that a line names, with its options."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and self.load(str(name)), rest


def to_front(command: Any, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the global flags from the rest of the line, since Typer takes them before the sub-command alone.

    Arguments after ``--`` stay, and so does the value of another option, whatever it looks like.
    """
    flags: list[str] = []
    rest: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            return flags, [*rest, argument, *left]
        letters = [f"-{letter}" for letter in argument[1:]] if argument.startswith("-") else []
        if argument in GLOBAL:
            flags.append(argument)
        elif letters and set(letters) <= GLOBAL.keys():  # -qv
            flags += letters
        elif argument.partition("=")[0] == CODE:
            flags.append(argument if "=" in argument else f"{argument}={left.pop(0) if left else ''}")
        else:
            rest.append(argument)
            named = [option for option in command.params if letters and argument in option.opts]
            if any(not (option.is_flag or option.count) for option in named):  # it takes a value
                rest += left[:1]
                del left[:1]
            elif argument in getattr(command, "commands", ()):
                command = command.load(argument)
    return flags, rest


app = typer.Typer(
    name="kd",
    cls=Commands,
    help="Distil a large fine-tuned text classifier into a BiLSTM hundreds of times faster.",
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
        list[Path] | None, typer.Option("--code", help="Load a plugin from a file. Repeat it.", metavar="FILE.py")
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
    gc.set_threshold(50_000)  # imports make many objects and no garbage
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
        if isinstance(error, OSError) and error.filename is not None:
            what = f"this path cannot be used: {(error.strerror or str(error)).lower()}"
            hint = "choose another path, or see who may read and write it, and whether there is room"
            return ui.fail(DataError(what, file=os.fsdecode(error.filename), hint=hint), error)
        return _unexpected(error)
    finally:
        stop_spinner()


def _unexpected(error: BaseException) -> int:
    what = f"unexpected {type(error).__name__}: {error}"
    return ui.fail(KdError(what, hint="run it again with --debug and report what it prints"), error)


def _interrupted() -> int:
    error = KdError("interrupted", hint="run the same command again to continue from here")
    error.exit_code = INTERRUPTED
    return ui.fail(error)


def _usage(error: Exception) -> UsageError:
    from kdcli.config.table import nearest

    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".").replace("Value error, ", "")  # type: ignore[attr-defined]
    hint = f"`{context.command_path if context else 'kd'} --help` shows what it takes"
    typed, _, choices = message.partition("' is not one of ")
    if context and hasattr(error, "possibilities"):  # there is no such option
        message = message.partition(" (Possible options")[0]
        hint = _option_hint(error.option_name, context) or hint  # type: ignore[attr-defined]
    if close := nearest(typed.rpartition("'")[2], re.findall(r"'([^']+)'", choices)):
        hint = f"did you mean {close}?"
    return UsageError(message[:1].lower() + message[1:], hint=hint)


def _option_hint(typed: str, context: Any) -> str | None:
    """Name the option that is meant: one of the command, or a setting that only ``--set`` takes there."""
    from kdcli.config.schema import Settings
    from kdcli.config.table import nearest, options_of

    options = [name for option in context.command.params for name in option.opts if name.startswith("--")]
    name = typed.lstrip("-").replace("_", "-")
    name = OTHER_NAMES.get(name, name)
    if f"--{name}" in options:
        return f"did you mean --{name}?"
    found = [one.key for one in options_of(Settings) if one.key.rpartition(".")[2] == name.replace("-", "_")]
    if found and "--set" in options:
        return f"it is a setting of one stage: {' or '.join(f'--set {key}=VALUE' for key in found)}"
    close = nearest(f"--{name}", options)
    return f"did you mean {close}?" if close else None
