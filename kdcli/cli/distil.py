"""``kd distil``: a classifier and texts in, a student out."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import FILES, RUN, SETTINGS, Request, command, option
from kdcli.cli.progress import duration
from kdcli.cli.run_all import deferral_lines, results_view
from kdcli.errors import UsageError

if TYPE_CHECKING:
    from kdcli.distillation.distil import DistilResult

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The teacher: a classifier's folder or hub name.")]
_TEXTS = (
    "Tables (.csv .tsv .jsonl .parquet) or texts one a line (.txt), also .gz; folders; patterns; a dataset of the Hub; "
    "-: lines of stdin."
)
Texts = Annotated[list[str], typer.Argument(metavar="TEXTS", help=_TEXTS)]
Minutes = Annotated[
    float | None,
    option(RUN, "--minutes", "The time there is: kd plans what fits into it.", "N", "as long as all texts take"),
]
Budget = Annotated[
    int | None,
    option(RUN, "--budget", "The most texts that the teacher labels; transfer.choose says which.", "N", "all texts"),
]
Labels = Annotated[
    str | None,
    option(SETTINGS, "--labels", "Names of the classes, where the teacher has none.", "NAME,NAME", "the teacher's"),
]
LabelCol = Annotated[
    str | None,
    option(SETTINGS, "--label-col", "Column of gold labels; none: read no labels.", "COLUMN", "one named label, ..."),
]
Price = Annotated[
    float, option(FILES, "--price", "Price of an hour of this machine, for the cost of predictions.", "PRICE", "0.10")
]


@command(
    "kd distil MODEL reviews.csv",
    "kd distil MODEL reviews.csv --minutes 10",
    "kd distil MODEL reviews.csv --agree 0.95",
    "kd distil facebook/bart-large-mnli mails.jsonl --labels billing,shipping,praise",
    options=(
        *("profile", "text_col", "text2_col", "run_dir", "force", "seed", "device", "precision", "offline"),
        *("resume", "seeds", "dry_run", "track", "engine", "deferral.agree"),
    ),
    about={
        "profile": "|distil",
        "run_dir": "|runs/TEXTS",
        "text_col": "|the one that holds texts",
        "text2_col": "|none: single texts",
        "dry_run": "Show the plan and about how long it takes; write nothing.",
    },
)
def distil(
    request: Request,
    *,
    model: Model,
    texts: Texts,
    minutes: Minutes = None,
    budget: Budget = None,
    labels: Labels = None,
    label_col: LabelCol = None,
    price: Price = 0.1,
) -> None:
    """The texts need no labels: the teacher's answers choose the student, and say how near it comes. What is not
    said is derived: columns, labels, held-out texts, lengths, the number of updates. The student is
    runs/NAME/student, after the first file's name, and runs/NAME/profile.toml runs again with kd run-all. A killed
    run resumes by the same command.
    """
    from kdcli.distillation.distil import DistilResult, Request as Wanted, distil as distil_model
    from kdcli.distillation.texts import STDIN, read_stdin

    if minutes is not None and not minutes > 0:
        raise UsageError("--minutes is a number above 0")
    options = request.run_options()
    if STDIN in texts:
        root = options.run_dir or Path("runs") / "stdin"
        options, piped = replace(options, run_dir=root), read_stdin(sys.stdin.buffer.read(), root / "texts")
        texts = [str(piped) if name == STDIN else name for name in texts]
    names = tuple(name.strip() for name in labels.split(",")) if labels else ()
    if labels and (len(names) < 2 or not all(names) or len(set(names)) < len(names)):
        raise UsageError("--labels takes two or more different names", hint="--labels billing,shipping,praise")
    wanted = Wanted(model, tuple(texts), minutes, budget, names, request.text_col, request.text2_col, label_col)
    bare = replace(request, text_col=None, text2_col=None)
    load, offline = lambda values: bare.load("distil", settings=values), request.offline
    with ui.reporting("distil") as reporter:
        result = distil_model(wanted, load, options=options, offline=offline, price=price, reporter=reporter)
    ui.show(result, lambda found: _view(found) if isinstance(found, DistilResult) else ui.describe(found))


def _view(result: "DistilResult") -> RenderableType:
    page = [f"report: {result.report}"] if result.report else []
    lines = [*deferral_lines(result.deferral), f"student: {result.student}", *page, result.outlook]
    more = {
        "cold start, s": {model: f"{seconds:.1f}" for model, seconds in result.cold_start.items()},
        "cost of 1,000,000 (--price an hour)": {model: f"{cost:.2g}" for model, cost in result.cost.items()},
    }
    ended = Text(f"done in {duration(result.seconds)}", "dim")
    return Group(results_view(result.results, more), Text(""), *map(Text, lines), ended)
