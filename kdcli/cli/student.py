"""``kd student``: distil the teacher into a student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.console import RenderableType

from kdcli.cli import flags, stage

app = typer.Typer()


@app.command(epilog=flags.example("kd student --profile sst2 --data-dir data/SST-2 --kd-loss kl -T 3"))
def student(
    profile: flags.ProfileName = None,
    set_: flags.Set = None,
    data_dir: flags.DataDir = None,
    text_col: flags.TextCol = None,
    text2_col: flags.Text2Col = None,
    label_col: flags.LabelCol = None,
    kd_loss: flags.KdLoss = None,
    kd_weight: flags.KdWeight = None,
    ce_weight: flags.CeWeight = None,
    temperature: flags.Temperature = None,
    lr: flags.Lr = None,
    epochs: flags.Epochs = None,
    max_steps: flags.MaxSteps = None,
    max_length: flags.MaxLength = None,
    batch_size: flags.StudentBatchSize = None,
    input_: flags.MaybeInput = None,
    output: flags.MaybeOutput = None,
    run_dir: flags.RunDir = None,
    force: flags.Force = False,
    seed: flags.Seed = None,
    device: flags.Device = None,
    offline: flags.Offline = False,
    resume: flags.Resume = "auto",
    dry_run: flags.DryRun = False,
    track: flags.Track = None,
) -> None:
    """Distil the joined set into a student; the best checkpoint on dev is kept."""
    values = {
        **flags.tables(data_dir, text_col, text2_col, label_col),
        "student.kd_loss": kd_loss,
        "student.kd_weight": kd_weight,
        "student.ce_weight": ce_weight,
        "student.temperature": temperature,
        "student.lr": lr,
        "student.epochs": epochs,
        "student.max_steps": max_steps,
        "student.max_length": max_length,
        "student.batch_size": batch_size,
        "seed": seed,
        "device": device,
    }
    chosen = flags.load(profile, set_, values, default="demo", uses={"students"})
    wish = stage.Wish(run_dir, None, resume, force, dry_run, track)
    outputs = {"student": output, "encoded": output and _beside(output)}
    stage.run(
        ["encode", "student"], chosen, wish, inputs={"joined": input_}, outputs=outputs, describe={"student": _describe}
    )


def _beside(output: Path) -> Path:
    return output.with_name(f"{output.name}.encoded")


def _describe(result: dict[str, Any]) -> RenderableType:
    rows = {f"dev {name}": f"{value:.4f}" for name, value in result["dev"].items()}
    shown = {name.replace("_", " "): value for name, value in result.items() if isinstance(value, int | str)}
    return stage.panel("student", {**rows, **shown})
