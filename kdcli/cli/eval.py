"""``kd eval``: the scores of a student, their intervals, and whether it is better than another."""

from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import FILES, Request, command, option
from kdcli.cli.predict import with_columns_of_run
from kdcli.errors import UsageError

if TYPE_CHECKING:
    from kdcli.evaluate.evaluate import EvalReport, TableEvaluation
    from kdcli.tasks.statistics import Comparison, Evaluation

MOST_CLASSES = 12  # larger confusion matrices are shown with ``--json`` alone

Against = Annotated[
    Path | None, option(FILES, "--against", "Another student, or run: test whether they differ.", "FOLDER")
]
Split = Annotated[Literal["dev", "test"], option(FILES, "--split", "Split of the data folder.", default="dev")]


@command(
    "kd eval --student runs/sst2",
    "kd eval --student runs/sst2/student --against runs/sst2/baseline --profile sst2 --data-dir data/SST-2",
    "kd eval --student runs/sst2/student --input mine.tsv --json",
    options=("student", "teacher", "input", "profile", "task", "seed", "device", "precision", "offline"),
    required=("student",),
    about={"input": "Labelled texts: .parquet .tsv .csv .jsonl, also .gz."},
)
def eval_(request: Request, *, against: Against = None, split: Split = "dev") -> None:
    """Beside a teacher: their agreement. Against another student: a paired significance test. A run folder stands
    for its student, its teacher and its profile.
    """
    from kdcli.evaluate.evaluate import evaluate_models
    from kdcli.run import own_teacher, profile_of

    student, table = request.student, request.input
    assert student is not None
    own = profile_of(student) if table is None or request.flags["task.data_dir"] is not None else None
    profiled = bool(request.profile or own)
    if not profiled and table is None:
        hint = "add --input TABLE, --profile NAME with --data-dir FOLDER, or name a run folder"
        raise UsageError("eval needs labelled texts", hint=hint)
    if not profiled:
        request = with_columns_of_run(request, label=True)
    settings = request.load_for_model(own)
    with ui.reporting("eval") as reporter:
        report = evaluate_models(
            student=student,
            teacher=request.teacher or own_teacher(student),
            against=against,
            settings=settings,
            profiled=profiled,
            table=table,
            split=split,
            reporter=reporter,
        )
    ui.show(report, report_view)


def report_view(report: "EvalReport") -> RenderableType:
    """Show all scores of all tables."""
    folders = ui.describe(report.models)
    note = "metrics x 100, with 95 % intervals of a bootstrap; ECE: 15 bins of equal width (Guo et al. 2017)"
    panels = [_table(name, table, report) for name, table in report.tables.items()]
    return Group(folders, *panels, Text(note, "dim"))


def _table(name: str, table: "TableEvaluation", report: "EvalReport") -> Panel:
    figures = {model: _figures(evaluation, report) for model, evaluation in table.models.items()}
    parts: list[RenderableType] = [ui.columns(figures)]
    if report.labels and len(report.labels) <= MOST_CLASSES:
        named = [f"{label} {name}".strip() for label, name in zip_longest(report.labels, report.names, fillvalue="")]
        for model, evaluation in table.models.items():
            parts += [Text(), _confusion(model, evaluation, named)] if evaluation.confusion else []
    for comparison in table.comparisons:
        parts += [Text(), _comparison(comparison)]
    share = table.unanswered / (table.rows + table.unanswered)
    without = f", {table.unanswered:,} ({share:.1%}) without an answer are left out" if table.unanswered else ""
    return ui.panel(f"{name}: {table.rows:,} rows{without}", *parts)


def _figures(evaluation: "Evaluation", report: "EvalReport") -> dict[str, object]:
    titles = {**{name: name for name in evaluation.metrics}, "f1": report.f1}
    if report.f1 == "macro f1":  # of more than two classes the two are one
        titles.pop("macro_f1", None)
    shown: dict[str, object] = {}
    for name, title in titles.items():
        if one := evaluation.metrics.get(name):
            shown[title] = f"{_percent(one.value)} ({_percent(one.low)} to {_percent(one.high)})"
    if evaluation.agreement is not None:
        shown["agrees with the teacher"] = _percent(evaluation.agreement)
    if found := evaluation.calibration:
        shown |= {"mean confidence": _percent(found.confidence), "ECE": _percent(found.ece)}
    for part in evaluation.lengths:
        words = f"{part.shortest:,} to {part.longest:,} words, {part.rows:,} rows"
        shown[f"{titles.get(report.metric, report.metric)} of {words}"] = _percent(part.metrics[report.metric])
    for label in evaluation.labels or []:
        above = f" (above {label.threshold:.2f})" if evaluation.confusion is None else ""
        values = ", ".join(map(_percent, (label.f1, label.precision, label.recall)))
        shown[f"F1, precision, recall of {label.label}, {label.rows:,} rows"] = values + above
    return shown


def _confusion(model: str, evaluation: "Evaluation", labels: list[str]) -> Table:
    answers = [f"answer {label}" for label in labels]
    rows = zip(labels, evaluation.confusion or [], strict=True)
    return ui.records([{f"{model}: label": label, **dict(zip(answers, row, strict=True))} for label, row in rows])


def _comparison(comparison: "Comparison") -> Table:
    rows: list[dict[str, object]] = [
        {
            f"{comparison.first} - {comparison.second}": name,
            "difference": f"{100 * one.difference:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})",
            "p": "< 0.001" if one.p < 0.001 else f"{one.p:.3f}",
            "test": one.test,
        }
        for name, one in comparison.metrics.items()
    ]
    return ui.records(rows)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
