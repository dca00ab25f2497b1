"""``kd profile``: list, show, copy, check and import profiles."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdcli.cli import complete, flags, ui
from kdcli.config import files
from kdcli.errors import KdError, UsageError

if TYPE_CHECKING:
    from kdcli.config.dbert import Imported
    from kdcli.config.load import Profile

app = typer.Typer(name="profile", help="The settings of a run: list, show, copy, check and import profiles.")

Name = Annotated[
    str,
    typer.Argument(metavar="NAME|FILE", help="A profile's name, or a .toml file.", autocompletion=complete.profile),
]


@app.command("list", epilog=flags.example("kd profile list"))
def list_() -> None:
    """List the profiles that come with kd, and what each is for."""
    found = [
        {"name": name, "about": files.about(files.find(name)).partition("\n")[0], "file": str(files.find(name))}
        for name in files.names()
    ]
    ui.show({"profiles": found}, _listed)


@app.command(epilog=flags.example("kd profile show sst2 --resolved", "kd profile show sst2 --docs"))
def show(
    name: Name,
    resolved: Annotated[
        bool,
        flags.switch("--resolved/--no-resolved", help="Every setting, with where its value came from."),
    ] = False,
    docs: Annotated[
        bool,
        flags.switch("--docs/--no-docs", help="Every setting, with what it means and takes, those of plugins too."),
    ] = False,
    set_: flags.Set = None,
) -> None:
    """Show a profile as it is written, or every setting with its origin, or with all that is to be known of it."""
    if not (resolved or docs) and set_:
        raise UsageError("--set changes what --resolved and --docs show", hint="add --resolved, or --docs")
    if docs:
        _explain(flags.load(name, set_, {}))
    elif resolved:
        profile = flags.load(name, set_, {})
        result: dict[str, Any] = {
            "name": profile.name,
            "settings": profile.settings.model_dump(mode="json"),
            "origins": profile.origins,
        }
        ui.show(result, lambda _: _toml(profile.to_toml(with_origins=True)))
    else:
        path = files.find(name)
        values = files.read(path)
        ui.show({"name": path.stem, "file": str(path), "values": values}, lambda _: _toml(path.read_text("utf-8")))


@app.command(epilog=flags.example("kd profile copy sst2 my.toml"))
def copy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A profile's name.", autocompletion=complete.profile)],
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to. Default: NAME.toml")] = None,
    force: flags.Force = False,
) -> None:
    """Copy a profile to a file of your own, to change it there."""
    from kdcli.files import atomic

    if "/" in name or name.endswith(".toml"):
        raise UsageError("kd profile copy takes the name of a profile, not a file", hint="`kd profile list` names them")
    source = files.find(name)
    target = _target(file or Path(f"{name}.toml"), force)
    text = source.read_text("utf-8").replace(f"--profile {name}", f"--profile {target}")
    with atomic(target) as temporary:
        temporary.write_text(text, "utf-8")
    ui.show({"name": name, "file": str(target)}, lambda _: Text(f"{name} is in {target}"))


@app.command(epilog=flags.example("kd profile check my.toml"))
def check(name: Name, set_: flags.Set = None) -> None:
    """Check a profile: every wrong key is reported at once, and the exit code is 3."""
    profile = flags.load(name, set_, {})
    result = {"name": profile.name, "valid": True, "settings": len(profile.origins)}
    ui.show(result, lambda _: Text(f"{name} is valid: {len(profile.origins)} settings"))


@app.command("import-dbert", epilog=flags.example("kd profile import-dbert confs/birnn_sst2.json"))
def import_dbert(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.json", help="A config of d-bert.", show_default=False)],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Where to. Default: CONFIG.toml", show_default=False)
    ] = None,
    force: flags.Force = False,
    skip_unknown: Annotated[
        bool, flags.switch("--skip-unknown/--no-skip-unknown", help="Leave out keys that d-bert does not know.")
    ] = False,
) -> None:
    """Turn a JSON config of d-bert, with what it inherits, into a profile, and say what became of each key.

    The faults of the released code are not carried over.
    """
    from kdcli.config import dbert

    target = _target(file or Path(f"{config.stem}.toml"), force)
    imported = dbert.import_dbert(config, skip_unknown=skip_unknown)
    _write_valid(imported, target)
    result = {
        "name": target.stem,
        "file": target,
        "from": config,
        "extends": imported.extends,
        "kept": imported.kept,
        "changes": imported.changes,
        "remarks": imported.remarks,
        "run": imported.run.format(profile=target),
    }
    ui.show(result, lambda _: _imported(imported, target))


def _explain(profile: Profile) -> None:
    from kdcli.config.docs import explain

    docs = explain(profile)
    for warning in docs.warnings:
        ui.warn(warning)
    tables = [
        {
            "table": chapter.table,
            "about": chapter.about,
            "settings": [
                {**asdict(setting.option), "value": setting.value, "origin": setting.origin}
                for setting in chapter.settings
            ],
        }
        for chapter in docs.chapters
    ]
    ui.show({"name": profile.name, "tables": tables}, lambda _: _toml(docs.to_toml(profile.name)))


def _write_valid(imported: Imported, target: Path) -> None:
    """Write a profile that loads, or none."""
    from kdcli.config.load import load_profile
    from kdcli.files import atomic

    with atomic(target) as temporary:
        temporary.write_text(imported.to_toml(target), "utf-8")
        try:
            load_profile(temporary, environ={})
        except KdError as error:
            raise imported.blame(error) from error


def _target(file: Path, force: bool) -> Path:
    if file.suffix != ".toml":
        raise UsageError(f"a profile's file ends in .toml, and {file} does not", hint=f"name it {file}.toml")
    if file.exists() and not force:
        raise UsageError("the file is there already", file=file, hint="name another one, or add --force")
    return file


def _listed(result: dict[str, Any]) -> Table:
    table = ui.columns("profile", "what for")
    for profile in result["profiles"]:
        table.add_row(Text(profile["name"], "bold"), Text(profile["about"]))
    return table


def _imported(imported: Imported, target: Path) -> RenderableType:
    table = ui.columns("key", "there", "here", "why")
    for change in imported.changes:
        here = f"{change.setting} = {json.dumps(change.now)}" if change.setting else "dropped"
        table.add_row(*map(Text, (change.key, json.dumps(change.value), here, change.why)))
    kept = f"{target}: {imported.file} over the profile {imported.extends}; {len(imported.kept)} keys as they are"
    return Group(Text(kept), table, *map(Text, imported.remarks), Text(imported.run.format(profile=target), "bold"))


def _toml(text: str) -> Text:
    shown = Text(text.rstrip("\n"), no_wrap=True, overflow="ignore")
    shown.highlight_regex(r"(?m)(^| )#.*$", "dim")
    shown.highlight_regex(r"(?m)^\[.*\]$", "bold")
    return shown
