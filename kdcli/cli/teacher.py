"""``kd teacher``: fine-tune a teacher, export its logits."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import RenderableType

from kdcli.cli import flags, stage

app = typer.Typer(name="teacher", help="Fine-tune the teacher; export its logits for the transfer set.")


@app.command(epilog=flags.example("kd teacher train --profile sst2 --data-dir data/SST-2"))
def train(
    profile: flags.ProfileName = None,
    set_: flags.Set = None,
    data_dir: flags.DataDir = None,
    text_col: flags.TextCol = None,
    text2_col: flags.Text2Col = None,
    label_col: flags.LabelCol = None,
    lr: flags.Lr = None,
    epochs: flags.Epochs = None,
    max_steps: flags.MaxSteps = None,
    max_length: flags.MaxLength = None,
    batch_size: flags.BatchSize = None,
    output: flags.MaybeOutput = None,
    run_dir: flags.RunDir = None,
    force: flags.Force = False,
    seed: flags.Seed = None,
    device: flags.Device = None,
    precision: flags.Precision = None,
    offline: flags.Offline = False,
    resume: flags.Resume = "auto",
    dry_run: flags.DryRun = False,
    track: flags.Track = None,
) -> None:
    """Fine-tune an encoder on the labelled texts; the best checkpoint on dev is kept."""
    values = {
        **flags.tables(data_dir, text_col, text2_col, label_col),
        "teacher.train": True,
        "teacher.lr": lr,
        "teacher.epochs": epochs,
        "teacher.max_steps": max_steps,
        "teacher.max_length": max_length,
        "teacher.batch_size": batch_size,
        "seed": seed,
        "device": device,
        "precision": precision,
    }
    chosen = flags.load(profile, set_, values, default="demo", uses=())
    wish = stage.Wish(run_dir, None, resume, force, dry_run, track)
    stage.run(["teacher"], chosen, wish, outputs={"teacher": output}, describe={"teacher": _trained})


@app.command(epilog=flags.example("kd teacher export --profile sst2 --data-dir data/SST-2"))
def export(
    profile: flags.ProfileName = None,
    set_: flags.Set = None,
    data_dir: flags.DataDir = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            help="Fine-tuned teacher: a folder or hub name. Default: the run's own.",
            rich_help_panel=flags.FILES,
        ),
    ] = None,
    input_: flags.MaybeInput = None,
    output: flags.MaybeOutput = None,
    run_dir: flags.RunDir = None,
    force: flags.Force = False,
    max_length: flags.MaxLength = None,
    batch_size: flags.BatchSize = None,
    device: flags.Device = None,
    precision: flags.Precision = None,
    shard: flags.ShardOf = None,
    offline: flags.Offline = False,
    resume: flags.Resume = "auto",
    dry_run: flags.DryRun = False,
) -> None:
    """Export the teacher's logits for each text of the transfer set."""
    values = {
        "task.data_dir": data_dir,
        "teacher.model": teacher,
        "teacher.train": False if teacher else None,
        "teacher.max_length": max_length,
        "teacher.export.batch_size": batch_size,
        "teacher.export.precision": precision,
        "device": device,
    }
    chosen = flags.load(profile, set_, values, default="demo", uses=())
    wish = stage.Wish(run_dir, shard, resume, force, dry_run)
    stage.run(
        ["export"],
        chosen,
        wish,
        inputs={"transfer": input_},
        outputs={"logits": output},
        describe={"export": _exported},
    )


def _trained(result: dict[str, Any]) -> RenderableType:
    rows = {f"dev {name}": f"{value:.4f}" for name, value in result["metrics"].items()}
    if len(result["grid"]) > 1:
        rows |= {f"at {lr}": "broke down" if value is None else f"{value:.4f}" for lr, value in result["grid"].items()}
    rows |= {"learning rate": f"{result['lr']:g}", "texts an update": result["batch_size"]}
    rows |= {"updates": result["updates"], "best epoch": f"{result['best_epoch']:g} of {result['epochs']:g}"}
    return stage.panel("teacher train", {**rows, "parameters": result["parameters"]})


def _exported(result: dict[str, Any]) -> RenderableType:
    shown = {name.replace("_", " "): value for name, value in result.items() if isinstance(value, int | str)}
    return stage.panel("teacher export", shown)
