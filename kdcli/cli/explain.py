"""``kd explain``: which words make a student decide so, coloured on a terminal, as JSON, or as one HTML page."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from rich.console import Group
from rich.text import Text

from kdcli.api import Reporter
from kdcli.cli import ui
from kdcli.cli.options import FILES, SETTINGS, Request, command, option
from kdcli.cli.predict import with_columns_of_run

if TYPE_CHECKING:
    from kdcli.student.explain import Explanation
    from kdcli.student.student import Student

ROWS = 64  # texts that are explained at once
SHOWN = 6  # the words with the largest effects, whose numbers are shown below a text

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
    """Each word is masked in turn, and each two neighbours: the effect is what the answer's logit and probability
    lose. A positive one speaks for the label. JSON has all effects, also those of neighbours.
    """
    from kdcli.evaluate.pair import open_student
    from kdcli.files import check_output
    from kdcli.report.page import write_explanations

    assert request.student is not None
    with ui.reporting("explain") as reporter:
        loaded = open_student(request.student)
        student = cast("Student", loaded.model)
        if html is not None:
            check_output(html, [*loaded.folders, *filter(None, [request.input])], force=request.force)
        found = (one for texts in _read(request, student, reporter) for one in student.explain(texts, label))
        if html is not None:
            write_explanations(list(found), student.task, html)
            ui.show({"page": html})
        elif ui.output.json:
            ui.show({"explanations": list(found)})
        elif not all(ui.show(one, _view) for one in found):
            return  # nobody reads them any more


def _read(request: Request, student: "Student", reporter: Reporter) -> Iterator[list[Any]]:
    """Read texts, some at once: lines as soon as they are there."""
    from kdcli.tables import read_lines
    from kdcli.tasks.split import stream_table, table_settings

    task, table = student.task, request.input
    parts: Iterator[Sequence[Sequence[str]]]
    if table is None or str(table) == "-":
        parts = iter(read_lines(cast(Any, sys.stdin.buffer), task, reporter))
    else:
        asked = with_columns_of_run(request).load_for_model(None).task
        settings = table_settings(task, asked, str(request.student), profiled=False)
        frames = stream_table(table, settings, task, reporter)
        parts = ([frame[column].to_list() for column in task.columns] for frame in frames)
    for columns in parts:
        rows = list(columns[0] if len(columns) == 1 else zip(*columns, strict=True))
        yield from (rows[begin : begin + ROWS] for begin in range(0, len(rows), ROWS))


def _view(found: "Explanation") -> Group:
    """Show a text below its answer, its words in green (for it) and red (against it), and the largest effects."""
    answer = f"{found.logit:.2f}" if found.probability is None else f"{found.label} {found.probability:.1%}"
    texts = [Text.assemble("  ", *((piece, _style(effect)) for piece, effect in line)) for line in found.marked()]
    largest = sorted(found.words, key=lambda word: -abs(word.logit))[:SHOWN]
    effects = "   ".join(f"{word.text} {word.logit:+.2f}" for word in largest)
    return Group(Text(answer, "bold"), *texts, Text(f"  {effects}", "dim"))


def _style(effect: float) -> str:
    colour = "green" if effect > 0 else "red"
    return "" if abs(effect) < 0.1 else colour if abs(effect) < 0.5 else f"bold {colour}"
