"""``kd profile``: list, show, copy and check profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from kdcli.cli import complete, flags, ui
from kdcli.errors import UsageError
from kdcli.profile import files

app = typer.Typer(name="profile", help="The settings of a run: list, show, copy and check profiles.")

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


@app.command(epilog=flags.example("kd profile show sst2 --resolved"))
def show(
    name: Name,
    resolved: Annotated[
        bool,
        flags.switch("--resolved/--no-resolved", help="Every setting, with where its value came from."),
    ] = False,
    set_: flags.Set = None,
) -> None:
    """Show a profile as it is written, or every setting with its origin."""
    if not resolved and set_:
        raise UsageError("--set changes what --resolved shows", hint="add --resolved")
    if resolved:
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
    from kdcli.data.files import atomic

    if "/" in name or name.endswith(".toml"):
        raise UsageError("kd profile copy takes the name of a profile, not a file", hint="`kd profile list` names them")
    source = files.find(name)
    target = file or Path(f"{name}.toml")
    if target.suffix != ".toml":
        raise UsageError(f"a profile's file ends in .toml, and {target} does not", hint=f"name it {target}.toml")
    if target.exists() and not force:
        raise UsageError("the file is there already", file=target, hint="name another one, or add --force")
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


def _listed(result: dict[str, Any]) -> Table:
    table = ui.columns("profile", "what for")
    for profile in result["profiles"]:
        table.add_row(Text(profile["name"], "bold"), Text(profile["about"]))
    return table


def _toml(text: str) -> Text:
    shown = Text(text.rstrip("\n"), no_wrap=True, overflow="ignore")
    shown.highlight_regex(r"(?m)(^| )#.*$", "dim")
    shown.highlight_regex(r"(?m)^\[.*\]$", "bold")
    return shown
