"""The commands that run stages: ``kd run-all`` all of a profile, each other one those that belong together."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.console import Group, RenderableType
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import FILES, RUN, Request, command, option
from kdcli.cli.progress import duration
from kdcli.errors import UsageError

if TYPE_CHECKING:
    from kdcli.config.load import Profile
    from kdcli.run.runner import Outcome

Files = Mapping[str, Path | None]
Step = Annotated[
    Literal["cache", "fine-tune", "prefixes", "sample"] | None,
    option(RUN, "--only", "The one step to run.", default="all four"),
]
STEPS = {"cache": "cache", "fine-tune": "generator", "prefixes": "prefixes", "sample": "heavy"}
"""The steps of the method heavy, and what each writes."""
TEXTS = {"output": "The texts: .parquet .tsv .csv .jsonl .txt, also .gz."}
Logits = Annotated[
    Path | None,
    option(FILES, "--logits", "Logits: .safetensors of kd, or .npy, .csv, .tsv, .parquet, .pt.", "FILE", "the run's"),
]
MADE = ("kd.lock", "profile.toml", "metrics.jsonl", ".launch.lock", "tensorboard/*", "wandb/*")
"""The files of a run folder that holds a student alone, beside those of its artefacts."""


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
    from kdcli.cli.results import results_view
    from kdcli.report.page import report_run
    from kdcli.run.runner import run_stages

    if os.environ.get("WORLD_SIZE", "1") != "1":
        hint = "start single stages with torchrun, such as `teacher train` and `teacher export`"
        raise UsageError("run-all is one process, and not for torchrun", hint=hint)
    profile, options = request.load("demo"), request.run_options()
    root = options.root(profile)
    begin = time.monotonic()
    with ui.reporting(profile.name) as reporter:
        outcomes = run_stages(None, profile, options=options, reporter=reporter)
        compared = not request.dry_run and outcomes[-1].name == "results"
        new = any(outcome.reasons for outcome in outcomes)
        page = report_run(root, new=new, reporter=reporter) if compared else None
    ran = any(outcome.seconds for outcome in outcomes)
    ended = f"done in {duration(time.monotonic() - begin)}" if ran else "up to date, nothing to do"
    where = [Text(f"run folder: {root}"), *([Text(f"report: {page}")] if page else []), Text(ended, "dim")]

    def last(result: Any) -> RenderableType:
        return Group(results_view(result) if compared else ui.panel(outcomes[-1].name, ui.describe(result)), *where)

    _show(outcomes, request.dry_run, last)


@command(
    "kd transfer lite --profile sst2 --data-dir data/SST-2 --n-iter 20",
    options=("profile", "task", "transfer.lite.*", "seed", "output", "run"),
    about=TEXTS,
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
    about={"output": "What the last step makes: a table, or the folder of the generator."},
)
def heavy(request: Request, *, only: Step = None) -> None:
    """Sample texts from a language model.

    Four steps: cache the task's texts, fine-tune the generator on them, count the texts' first words (prefixes),
    sample.
    """
    profile = request.load("demo", uses={"generators"}, settings={"transfer.method": "heavy"})
    _run([only] if only else list(STEPS), request, profile, outputs={STEPS[only or "sample"]: request.output})


@command(
    "kd transfer corpus --profile sst2 --data-dir data/SST-2 --input reviews.txt",
    options=(
        *("profile", "task", "transfer.corpus.*", "transfer.generator"),
        *("seed", "device", "precision", "offline", "output", "run"),
    ),
    about=TEXTS,
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
    about={"output": "Folder of the fine-tuned teacher."},
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
    _run(["export"], request, profile, inputs={"transfer": request.input}, outputs={"logits": request.output})


@command(
    "kd join --profile sst2 --data-dir data/SST-2 --label gold",
    options=("profile", "task.data_dir", "join.*", "input", "output", "run_dir", "force", "dry_run"),
    about={
        "input": "The transfer set: .parquet .tsv .csv .jsonl .txt, also .gz.",
        "output": "The joined set: .parquet .tsv .csv .jsonl, also .gz.",
    },
)
def join(request: Request, *, logits: Logits = None) -> None:
    """Join the teacher's logits to the transfer set."""
    inputs, outputs = {"transfer": request.input, "logits": logits}, {"joined": request.output}
    _run(["join"], request, request.load("demo", uses=()), inputs=inputs, outputs=outputs)


@command(
    "kd student --profile sst2 --data-dir data/SST-2 --kd-loss kl -T 3",
    options=("profile", "task", "student.*", "input", "output", "seed", "device", "offline", "run", "track"),
    about={"input": "The joined set: .parquet .tsv .csv .jsonl, also .gz.", "output": "Folder of the student."},
)
def student(request: Request) -> None:
    """Distil the joined set into a student."""
    from kdcli.files import check_replaceable, remove
    from kdcli.run.paths import artefact, is_run

    profile = request.load("demo", uses={"students"})
    joined, output = request.input, request.output
    if output is not None:
        # A run folder of its own, beside the output, holds what a killed run resumes with.
        joined = joined or artefact(request.run_options().root(profile), "joined")
        folder = output.with_name(f".{output.name}.run")
        if not is_run(folder):
            check_replaceable(folder, MADE)
        request = replace(request, run_dir=folder)
    _run(["encode", "student"], request, profile, inputs={"joined": joined}, outputs={"student": output})
    if output is not None and not request.dry_run:
        if (folder / "encode").is_dir():
            remove(folder / "encode")
        remove(folder, MADE)


def _run(
    names: Sequence[str], request: Request, profile: Profile, *, inputs: Files | None = None, outputs: Files
) -> None:
    """Run stages in order and show the result of each; ``inputs`` and ``outputs`` lie outside the run folder."""
    from kdcli.run.runner import run_stages

    options = request.run_options()
    with ui.reporting(profile.name) as reporter:
        outcomes = run_stages(names, profile, options=options, inputs=inputs, outputs=outputs, reporter=reporter)
    _show(outcomes, request.dry_run)


def _show(outcomes: Sequence[Outcome], dry_run: bool, last: Callable[[Any], RenderableType] | None = None) -> None:
    """Show the results of stages (by ``last`` the last alone), or for a dry run what would run and why.

    Of the processes that ``torchrun`` starts, the main one shows them.
    """
    from kdcli.parts import is_main_process

    if not is_main_process():
        return
    if dry_run:
        rows = [{"stage": one.stage, "would run because": "; ".join(one.reasons) or "up to date"} for one in outcomes]
        ui.show({"stages": outcomes}, lambda _: ui.records(rows, numbers=False))
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
