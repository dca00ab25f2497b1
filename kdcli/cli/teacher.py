"""``kd teacher``: fine-tune a teacher, export its logits, compare it with gold labels."""

from typing import TYPE_CHECKING, Annotated, Literal

from kdcli.cli import ui
from kdcli.cli.options import FILES, RUN, Request, command, option
from kdcli.cli.run_all import show_stages

if TYPE_CHECKING:
    from kdcli.config.load import Profile

Rows = Annotated[int, option(RUN, "--rows", "Rows to ask about, drawn at random.", "N", "200", min=1)]
Split = Annotated[Literal["train", "dev"], option(FILES, "--split", "Split of the data folder.", default="dev")]


@command(
    "kd teacher train --profile sst2 --data-dir data/SST-2",
    options=("profile", "task", "teacher.*", "seed", "device", "precision", "offline", "output", "run", "track"),
    about={"output": "Folder of the fine-tuned teacher."},
)
def train(request: Request) -> None:
    profile = request.load("demo", uses=(), settings={"teacher.train": True})
    show_stages(["teacher"], request, profile, outputs={"teacher": request.output})


@command(
    "kd teacher export --profile sst2 --data-dir data/SST-2",
    "kd teacher export --profile sst2 --teacher runs/sst2 --input texts.tsv --output logits.safetensors",
    options=(
        *("profile", "task.data_dir", "teacher", "input", "output", "teacher.max_length", "teacher.export.*"),
        *("teachers.*", "device", "offline", "run", "engine"),
    ),
    about={
        "input": "The texts: .parquet .tsv .csv .jsonl .txt, also .gz.|the run's transfer set",
        "output": "The logits: a .safetensors file.",
    },
)
def export(request: Request) -> None:
    profile = _with_teacher(request)
    show_stages(["export"], request, profile, inputs={"transfer": request.input}, outputs={"logits": request.output})


@command(
    "kd teacher audit --profile sst2 --data-dir data/SST-2 --rows 500",
    options=(
        *("profile", "task", "teacher", "teachers.*", "seed", "device", "precision", "offline", "run_dir", "dry_run"),
    ),
    about={"dry_run": "Show what it would take, of a teacher behind a server; ask nothing."},
)
def audit(request: Request, *, rows: Rows = 200, split: Split = "dev") -> None:
    """A teacher behind a server writes its answers into the run folder, and is not asked again for them."""
    from kdcli.cli.eval import report_view
    from kdcli.evaluate.evaluate import audit_teacher, draw_labelled
    from kdcli.run.stage import RunContext

    profile = _with_teacher(request)
    settings = profile.settings
    with ui.reporting("audit") as reporter:
        run = RunContext(settings, request.run_options().root(profile), reporter=reporter)
        table = draw_labelled(run.read(split), rows, settings.seed, reporter)
        if request.dry_run:
            foreseen = run.teacher.estimate(run.task, table)
        else:
            report = audit_teacher(run.teacher, table, run.task, settings, reporter)
    if request.dry_run:
        ui.show({"rows": len(table), "estimate": foreseen}, ui.describe)
    else:
        ui.show(report, report_view)


def _with_teacher(request: Request) -> "Profile":
    from kdcli.run import teacher_of

    model = teacher_of(request.teacher) if request.teacher else None
    return request.load("demo", uses=(), settings={"teacher.model": model, "teacher.train": False if model else None})
