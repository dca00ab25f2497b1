"""``kd profile``: list, show, copy and check profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import ProfileName, Request, command, switch
from kdcli.config import files
from kdcli.errors import UsageError

OwnName = Annotated[str, typer.Argument(metavar="NAME", help="The name of a profile of kd.")]
Target = Annotated[Path | None, typer.Argument(metavar="FILE", help="The copy.", show_default="NAME.toml")]
Resolved = Annotated[bool, switch("Options", "--resolved/--no-resolved", "Every setting and its origin.")]
WithDocs = Annotated[bool, switch("Options", "--docs/--no-docs", "Every setting and its meaning.")]


@command("kd profile list")
def list_(request: Request) -> None:
    """List the profiles."""
    found = [
        {"name": name, "about": files.about(files.find(name)).partition("\n")[0], "file": str(files.find(name))}
        for name in files.names()
    ]
    ui.show({"profiles": found})


@command("kd profile show sst2 --resolved", "kd profile show sst2 --docs", options=("sets",))
def show(request: Request, *, name: ProfileName, resolved: Resolved = False, docs: WithDocs = False) -> None:
    """Show a profile."""
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
    from kdcli.config.docs import explain, to_toml

    chapters, warnings = explain(profile)
    for warning in warnings:
        ui.warn(warning)
    ui.show({"name": profile.name, "tables": chapters}, lambda _: _toml(to_toml(profile.name, chapters)))


@command("kd profile copy sst2 my.toml", options=("force",))
def copy(request: Request, *, name: OwnName, file: Target = None) -> None:
    """Copy a profile."""
    from kdcli.files import atomic, check_output

    if "/" in name or name.endswith(".toml"):
        raise UsageError("kd profile copy takes the name of a profile, not a file", hint="`kd profile list` names them")
    source, target = files.find(name), file or Path(f"{name}.toml")
    if target.suffix != ".toml":
        raise UsageError(f"a profile's file ends in .toml, and {target} does not", hint=f"name it {target}.toml")
    check_output(target, [source], force=request.force)
    text = source.read_text("utf-8").replace(f"--profile {name}", f"--profile {target}")
    with atomic(target) as temporary:
        temporary.write_text(text, "utf-8")
    ui.show({"name": name, "file": str(target)}, lambda _: Text(f"{name} is in {target}"))


@command("kd profile check my.toml", options=("sets",))
def check(request: Request, *, name: ProfileName) -> None:
    """Check a profile."""
    profile = request.load(name)
    result = {"name": profile.name, "valid": True, "settings": len(profile.origins)}
    ui.show(result, lambda _: Text(f"{name} is valid: {len(profile.origins)} settings"))


def _toml(text: str) -> Text:
    shown = Text(text.rstrip("\n"), no_wrap=True, overflow="ignore")
    shown.highlight_regex(r"(?m)(^| )#.*$", "dim")
    shown.highlight_regex(r"(?m)^\[.*\]$", "bold")
    return shown
