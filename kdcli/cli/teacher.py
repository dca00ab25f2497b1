"""``kd teacher``: fine-tune a teacher, export its logits."""

from __future__ import annotations

from kdcli.cli import stage
from kdcli.cli.options import Request, command


@command(
    "kd teacher train --profile sst2 --data-dir data/SST-2",
    options=("profile", "task", "teacher.*", "seed", "device", "precision", "offline", "output", "run", "track"),
    about={"output": "Folder of the fine-tuned teacher."},
)
def train(request: Request) -> None:
    """Fine-tune an encoder on the labelled texts."""
    profile = request.load("demo", uses=(), settings={"teacher.train": True})
    stage.run(["teacher"], request, profile, outputs={"teacher": request.output})


@command(
    "kd teacher export --profile sst2 --data-dir data/SST-2",
    "kd teacher export --profile sst2 --teacher runs/sst2 --input texts.tsv --output logits.safetensors",
    options=(
        *("profile", "task.data_dir", "teacher", "input", "output", "teacher.max_length", "teacher.export.*"),
        *("device", "offline", "run"),
    ),
    about={
        "input": "The texts: .parquet .tsv .csv .jsonl .txt, also .gz.|the run's transfer set",
        "output": "The logits: a .safetensors file.",
    },
)
def export(request: Request) -> None:
    """Export the teacher's logits."""
    from kdcli.run.paths import teacher_of

    model = teacher_of(request.teacher) if request.teacher else None
    settings = {"teacher.model": model, "teacher.train": False if model else None}
    profile = request.load("demo", uses=(), settings=settings)
    inputs, outputs = {"transfer": request.input}, {"logits": request.output}
    stage.run(["export"], request, profile, inputs=inputs, outputs=outputs)
