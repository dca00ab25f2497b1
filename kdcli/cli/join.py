"""``kd join``: the teacher's logits beside the texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from kdcli.cli import flags, stage

app = typer.Typer()


@app.command(epilog=flags.example("kd join --profile sst2 --data-dir data/SST-2 --label gold"))
def join(
    profile: flags.ProfileName = None,
    set_: flags.Set = None,
    data_dir: flags.DataDir = None,
    input_: flags.MaybeInput = None,
    logits: Annotated[
        Path | None,
        typer.Option(
            "--logits",
            help="Logits: kd's .safetensors, or .npy, .csv, .tsv, .parquet, .pt from elsewhere. Default: the run's.",
            rich_help_panel=flags.FILES,
        ),
    ] = None,
    output: flags.MaybeOutput = None,
    run_dir: flags.RunDir = None,
    force: flags.Force = False,
    label: flags.Label = None,
    dry_run: flags.DryRun = False,
) -> None:
    """Join the teacher's logits to the transfer set, by hash of the text."""
    values = {"task.data_dir": data_dir, "join.label": label}
    chosen = flags.load(profile, set_, values, default="demo", uses=())
    wish = stage.Wish(run_dir, None, "auto", force, dry_run)
    inputs = {"transfer": input_, "logits": logits}
    stage.run(["join"], chosen, wish, inputs=inputs, outputs={"joined": output}, describe={"join": _describe})


def _describe(result: dict[str, Any]) -> RenderableType:
    shown = {name.replace("_", " "): value for name, value in result.items() if isinstance(value, int | str)}
    return stage.panel("join", shown)
