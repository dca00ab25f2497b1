"""The commands that make a student: ``kd run-all``, and those of single stages."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.console import Group, RenderableType
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import FILES, RUN, Request, command, option
from kdcli.errors import KdError, UsageError

if TYPE_CHECKING:
    from kdcli.api import Reporter
    from kdcli.config.load import Profile
    from kdcli.evaluate.results import Results
    from kdcli.run.runner import Outcome

Step = Annotated[
    Literal["cache", "fine-tune", "prefixes", "sample"] | None,
    option(RUN, "--only", "The one step to run.", default="all four"),
]
MADE = {"cache": "cache", "fine-tune": "generator", "prefixes": "prefixes", "sample": "heavy"}
"""What each step of the method heavy writes."""
Logits = Annotated[
    Path | None,
    option(FILES, "--logits", "Logits: .safetensors of kd, or .npy, .csv, .tsv, .parquet, .pt.", default="the run's"),
]


@command(
    "kd run-all --profile sst2 --data-dir data/SST-2 --seeds 3",
    options=(
        *("profile", "task", "run_dir", "force", "seed", "device", "precision", "offline"),
        *("resume", "first", "until", "only", "seeds", "dry_run", "track"),
    ),
)
def run_all(request: Request) -> None:
    """Run all stages of a profile.

    Stages: transfer (lite, cache, fine-tune, prefixes, sample, corpus, mix), teacher, export, join, encode, student,
    baseline, results. What is up to date is not run again.
    """
    from kdcli.run.runner import run_stages

    if os.environ.get("WORLD_SIZE", "1") != "1":
        hint = "start single stages with torchrun, such as `teacher train` and `teacher export`"
        raise UsageError("run-all is one process, and not for torchrun", hint=hint)
    profile, options = request.load("demo"), request.run_options()
    root = options.root(profile)
    with ui.reporting(profile.name) as reporter:
        outcomes = run_stages(None, profile, options=options, reporter=reporter)
        compared = not request.dry_run and outcomes[-1].name == "results"
        page = _report(root, outcomes, reporter) if compared else None
    where = [Text(f"run folder: {root}"), *([Text(f"report: {page}")] if page else [])]

    def last(result: Any) -> RenderableType:
        return Group(_results(result) if compared else ui.panel(outcomes[-1].name, ui.describe(result)), *where)

    _show(outcomes, request.dry_run, last)


@command(
    "kd transfer lite --profile sst2 --data-dir data/SST-2 --n-iter 20",
    options=("profile", "task", "transfer.lite.*", "seed", "output", "run"),
)
def lite(request: Request) -> None:
    """Fabricate texts by rules."""
    profile = request.load("demo", uses={"taggers"}, settings={"transfer.method": "lite"})
    _run(["lite"], request, profile, outputs={"lite": request.output})


@command(
    "kd transfer heavy --profile sst2 --data-dir data/SST-2 --num-samples 800000",
    options=(
        *("profile", "task", "transfer.generator", "transfer.heavy.*", "generators.*"),
        *("seed", "device", "precision", "offline", "output", "run", "track"),
    ),
)
def heavy(request: Request, *, only: Step = None) -> None:
    """Sample texts from a language model.

    Four steps: cache the task's texts, fine-tune the generator on them, count the texts' first words (prefixes),
    sample.
    """
    steps, made = ([only], MADE[only]) if only else (list(MADE), "heavy")
    profile = request.load("demo", uses={"generators"}, settings={"transfer.method": "heavy"})
    _run(steps, request, profile, outputs={made: request.output})


@command(
    "kd transfer corpus --profile sst2 --data-dir data/SST-2 --input reviews.txt",
    options=(
        *("profile", "task", "transfer.corpus.*", "transfer.generator"),
        *("seed", "device", "precision", "offline", "output", "run"),
    ),
)
def corpus(request: Request) -> None:
    """Take unlabelled texts.

    With --order-by lm, the generator is fine-tuned first, as in transfer heavy.
    """
    profile = request.load("demo", uses={"generators"}, settings={"transfer.method": "corpus"})
    by_model = profile.settings.transfer.corpus.order_by == "lm"
    steps = ["cache", "fine-tune", "corpus"] if by_model else ["corpus"]
    _run(steps, request, profile, outputs={"corpus": request.output})


@command(
    "kd teacher train --profile sst2 --data-dir data/SST-2",
    options=("profile", "task", "teacher.*", "seed", "device", "precision", "offline", "output", "run", "track"),
)
def train(request: Request) -> None:
    """Fine-tune an encoder on the labelled texts."""
    profile = request.load("demo", uses=(), settings={"teacher.train": True})
    _run(["teacher"], request, profile, outputs={"teacher": request.output})


@command(
    "kd teacher export --profile sst2 --data-dir data/SST-2",
    "kd teacher export --profile sst2 --teacher runs/sst2 --input texts.tsv --output logits.safetensors",
    options=(
        *("profile", "task.data_dir", "teacher", "input", "output", "teacher.max_length", "teacher.export.*"),
        *("device", "offline", "run"),
    ),
)
def export(request: Request) -> None:
    """Export the teacher's logits."""
    from kdcli.run.paths import teacher_of

    model = teacher_of(request.teacher) if request.teacher else None
    settings = {"teacher.model": model, "teacher.train": False if model else None}
    profile = request.load("demo", uses=(), settings=settings)
    inputs, outputs = {"transfer": request.input}, {"logits": request.output}
    _run(["export"], request, profile, inputs=inputs, outputs=outputs)


@command(
    "kd join --profile sst2 --data-dir data/SST-2 --label gold",
    options=("profile", "task.data_dir", "join.label", "input", "output", "run_dir", "force", "dry_run"),
)
def join(request: Request, *, logits: Logits = None) -> None:
    """Join the teacher's logits to the transfer set."""
    inputs, outputs = {"transfer": request.input, "logits": logits}, {"joined": request.output}
    _run(["join"], request, request.load("demo", uses=()), inputs=inputs, outputs=outputs)


@command(
    "kd student --profile sst2 --data-dir data/SST-2 --kd-loss kl -T 3",
    options=("profile", "task", "student.*", "input", "output", "seed", "device", "offline", "run", "track"),
)
def student(request: Request) -> None:
    """Distil the joined set into a student."""
    output = request.output
    outputs = {"student": output, "encoded": output and output.with_name(f"{output.name}.encoded")}
    profile = request.load("demo", uses={"students"})
    _run(["encode", "student"], request, profile, inputs={"joined": request.input}, outputs=outputs)


def _run(
    names: Sequence[str],
    request: Request,
    profile: Profile,
    *,
    inputs: Mapping[str, Path | None] | None = None,
    outputs: Mapping[str, Path | None] | None = None,
) -> None:
    """Run stages in order and show the result of each; ``inputs`` and ``outputs`` lie outside the run folder."""
    from kdcli.run.runner import run_stages

    options, more = request.run_options(), {"inputs": inputs or {}, "outputs": outputs or {}}
    with ui.reporting(profile.name) as reporter:
        outcomes = run_stages(names, profile, options=options, reporter=reporter, **more)
    _show(outcomes, request.dry_run)


def _show(outcomes: Sequence[Outcome], dry_run: bool, last: Callable[[Any], RenderableType] | None = None) -> None:
    """Show the results of stages (by ``last`` the last alone), or for a dry run what would run and why.

    Of the processes that ``torchrun`` starts, the main one shows them.
    """
    from kdcli.parts import is_main_process

    if not is_main_process():
        return
    if dry_run:
        ui.show({"stages": outcomes}, lambda _: _reasons(outcomes))
        return
    result = outcomes[-1].result
    ui.show(
        {"stages": outcomes, "result": result},
        lambda _: last(result) if last else Group(*(part for outcome in outcomes for part in _panel(outcome))),
    )


def _panel(outcome: Outcome) -> tuple[RenderableType, Text]:
    from kdcli.run.stages import STAGES

    ended = f"{outcome.seconds:.1f} s" if outcome.reasons else "up to date, nothing to do"
    return ui.panel(STAGES[outcome.name].title(), ui.describe(outcome.result)), Text(ended, "dim")


def _reasons(outcomes: Sequence[Outcome]) -> RenderableType:
    reasons = [(outcome.stage, "; ".join(outcome.reasons) or "up to date") for outcome in outcomes]
    return ui.records([{"stage": stage, "would run because": why} for stage, why in reasons], numbers=False)


def _report(root: Path, outcomes: Sequence[Outcome], reporter: Reporter) -> Path | None:
    """Write the run's page if something is new; an error here is a warning, for the run itself is done."""
    from kdcli.report.page import NAME, write_report

    page = root / NAME
    if any(outcome.reasons for outcome in outcomes) or not page.exists():
        try:
            write_report([root], reporter=reporter)
        except KdError as error:
            reporter.warn(f"there is no new report: {error}")
            return None
    return page


def _results(result: Results) -> RenderableType:
    scored = [(split, metric) for split, shares in result.gap_closed.items() for metric in shares]
    rows = [
        {
            "model": row.model,
            **{f"{split} {metric}": _score(row.scores[split][metric]) for split, metric in scored},
            "parameters": row.parameters,
            "without embeddings": row.parameters_without_embeddings,
            "MB": f"{row.megabytes:.1f}",
            "texts/s": round(row.per_second),
        }
        for row in result.rows
    ]
    shares = [f"{split} {metric} {_share(result.gap_closed[split][metric])}" for split, metric in scored]
    return Group(ui.records(rows), Text(""), Text(f"share of the gap closed: {', '.join(shares)}"))


def _score(values: Sequence[float]) -> str:
    mean = f"{100 * statistics.fmean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _share(value: float | None) -> str:
    return "n/a (the teacher is no better than the baseline)" if value is None else f"{100 * value:.0f} %"
