"""``kd explain``: which words make a student decide so, coloured on a terminal, as JSON, or as one HTML page."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from rich.console import Group, RenderableType
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import FILES, SETTINGS, Request, command, option
from kdcli.cli.predict import with_columns_of_run

if TYPE_CHECKING:
    from kdcli.api import Reporter, Task
    from kdcli.student.explain import Explanation
    from kdcli.student.student import Student

ROWS = 64
"""Texts that are explained at once."""
SHOWN = 6
"""The words with the largest effects, whose numbers are shown below a text."""

Label = Annotated[str | None, option(SETTINGS, "--label", "Label to explain.", "LABEL", "the most probable of a text")]
Html = Annotated[Path | None, option(FILES, "--html", "Write one HTML page instead.", "FILE")]


@command(
    "echo 'a gripping film' | kd explain --student runs/sst2",
    "kd explain --student runs/sst2 --input dev.tsv --html dev.html",
    "kd explain --student runs/mnli --input pairs.csv --label contradiction --json",
    options=("student", "input", "force", "text_col", "text2_col"),
    required=("student",),
    about={"input": "Table (.parquet .tsv .csv .jsonl) or lines (.txt), also .gz; -: lines of stdin.|stdin"},
)
def explain(request: Request, *, label: Label = None, html: Html = None) -> None:
    """Show which words made a student decide so.

    Each word is masked in turn, and each two neighbours: the effect is what the answer's logit and probability lose. A
    positive one speaks for the label. JSON has all effects, also those of neighbours.
    """
    from kdcli.evaluate.predict import open_student
    from kdcli.files import check_output

    assert request.student is not None
    with ui.reporting("explain") as reporter:
        loaded = open_student(request.student)
        student = cast("Student", loaded.model)
        if html is not None:
            check_output(html, [*loaded.folders, *filter(None, [request.input])], force=request.force)
        found = _explained(request, student, label, reporter)
        if html is not None:
            from kdcli.report.page import write_explanations

            write_explanations([one for part in found for one in part], student.task, html)
            ui.show({"page": html})
        elif ui.output.json:
            ui.show({"explanations": [one for part in found for one in part]})
        else:
            for part in found:
                if not ui.show(part, lambda shown: Group(*(_view(one, student.task) for one in shown))):
                    return


def _explained(
    request: Request, student: Student, label: str | None, reporter: Reporter
) -> Iterator[list[Explanation]]:
    """Read texts, and explain some at once: lines as soon as they are there."""
    if str(request.input or "-") == "-":
        from kdcli.evaluate.lines import read_lines

        parts: Iterator[Sequence[Sequence[str]]] = read_lines(cast(Any, sys.stdin.buffer), student.task, reporter)
    else:
        parts = _table(request, student, reporter)
    for columns in parts:
        rows = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        for begin in range(0, len(rows), ROWS):
            yield student.explain(rows[begin : begin + ROWS], label)


def _table(request: Request, student: Student, reporter: Reporter) -> Iterator[Sequence[Sequence[str]]]:
    from kdcli.tasks.split import stream_table, table_settings

    request = with_columns_of_run(request)
    settings = table_settings(student.task, request.load_for_model(None).task, str(request.student), profiled=False)
    for frame in stream_table(cast(Path, request.input), settings, student.task, reporter):
        yield [frame[column].to_list() for column in student.task.columns]


def _view(found: Explanation, task: Task) -> RenderableType:
    """Show a text: its label, its words in green (for it) and red (against it), and the largest effects."""
    name = dict(zip(task.labels, task.names, strict=False)).get(found.label, "")
    sure = f"{found.logit:.2f}" if found.probability is None else f"{found.probability:.1%}"
    lines = [Text(" ".join(filter(None, [found.label, name, sure])), "bold")]
    for pieces in found.marked():
        text = Text("  ")
        for piece, effect in pieces:
            text.append(piece, _style(effect))
        lines.append(text)
    largest = sorted(found.words, key=lambda word: -abs(word.logit))[:SHOWN]
    lines.append(Text("  " + "   ".join(f"{word.text} {word.logit:+.2f}" for word in largest), "dim"))
    return Group(*lines)


def _style(effect: float) -> str:
    if abs(effect) < 0.1:
        return ""
    return ("green" if effect > 0 else "red") + (" bold" if abs(effect) > 0.5 else "")
