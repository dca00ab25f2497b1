"""``kd profile``: list, show, copy and check profiles."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from kdcli.api import Reporter
from kdcli.cli import ui
from kdcli.cli.options import ProfileName, Request, command, switch
from kdcli.config import files
from kdcli.errors import DataError, UsageError, raise_all

if TYPE_CHECKING:
    from kdcli.config.load import Profile

OwnName = Annotated[str, typer.Argument(metavar="NAME", help="The name of a profile of kd.")]
Target = Annotated[Path | None, typer.Argument(metavar="FILE", help="The copy.", show_default="NAME.toml")]
Resolved = Annotated[bool, switch("Options", "--resolved", "Every setting and its origin.")]
WithDocs = Annotated[bool, switch("Options", "--docs", "Every setting and its meaning.")]


@command("kd profile list")
def list_(request: Request) -> None:
    found = [
        {"name": name, "about": files.about(files.find(name)).partition("\n")[0], "file": str(files.find(name))}
        for name in files.names()
    ]
    ui.show({"profiles": found})


@command("kd profile show sst2 --resolved", "kd profile show sst2 --docs", options=("sets",))
def show(request: Request, *, name: ProfileName, resolved: Resolved = False, docs: WithDocs = False) -> None:
    if not (resolved or docs):
        if request.sets:
            raise UsageError("--set changes what --resolved and --docs show", hint="add --resolved, or --docs")
        path = files.find(name)
        values = files.read(path)
        ui.show({"name": path.stem, "file": str(path), "values": values}, lambda _: _toml(path.read_text("utf-8")))
        return
    profile = request.load(name)
    if not docs:
        settings = profile.settings.model_dump(mode="json")
        result: dict[str, Any] = {"name": profile.name, "settings": settings, "origins": profile.origins}
        ui.show(result, lambda _: _toml(profile.to_toml(with_origins=True)))
        return
    explained, text = profile.explain()
    ui.show({"name": profile.name, "settings": explained}, lambda _: _toml(text))


@command("kd profile copy sst2 my.toml", options=("force",))
def copy(request: Request, *, name: OwnName, file: Target = None) -> None:
    from kdcli.files import check_output, write_text

    if "/" in name or name.endswith(".toml"):
        raise UsageError("kd profile copy takes the name of a profile, not a file", hint="`kd profile list` names them")
    source, target = files.find(name), file or Path(f"{name}.toml")
    if target.suffix != ".toml":
        raise UsageError(f"a profile's file ends in .toml, and {target} does not", hint=f"name it {target}.toml")
    check_output(target, [source], force=request.force)
    text = source.read_text("utf-8").replace(f"--profile {name}", f"--profile {target}")
    write_text(target, text)
    ui.show({"name": name, "file": str(target)}, lambda _: Text(f"{name} is in {target}"))


@command("kd profile check my.toml", options=("sets",))
def check(request: Request, *, name: ProfileName) -> None:
    """Where its data folder is there, its tables and stages are checked too, as `kd data check` and `--dry-run` do."""
    profile = request.load(name)
    with ui.reporting("kd profile check") as reporter:
        data = _check_data(profile, reporter)
    result = {"name": profile.name, "valid": True, "settings": len(profile.origins), "data": data}
    tables = f"its tables in {data}" if data else "its data folder is not there"
    ui.show(result, lambda _: Text(f"{name} is valid: {len(profile.origins)} settings; {tables}"))


def _check_data(profile: "Profile", reporter: Reporter) -> str | None:
    """Check the tables and the stages; return the data folder, or None where there is none."""
    from kdcli.run.runner import RunOptions, run_stages
    from kdcli.tasks.check import check_data
    from kdcli.tasks.split import SAMPLE, task_from

    task = profile.settings.task
    if not task.data_dir or (task.data_dir != SAMPLE and not Path(task.data_dir).expanduser().exists()):
        return None
    report = check_data(task, task_from(task), reporter, max_words=profile.settings.student.max_length)
    found = [DataError(one.what, hint=one.hint, file=one.file, row=one.row, key=one.key) for one in report.errors]
    if found:
        raise_all(found)
    if not task.student_of:
        run_stages(None, profile, options=RunOptions(dry_run=True), reporter=reporter)
    return task.data_dir


def _toml(text: str) -> Text:
    shown = Text(text.rstrip("\n"), no_wrap=True, overflow="ignore")
    shown.highlight_regex(r"(?m)(^| )#.*$", "dim")
    shown.highlight_regex(r"(?m)^\[.*\]$", "bold")
    return shown
