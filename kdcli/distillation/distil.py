"""``kd distil``: a teacher and texts in, a student out. It makes a profile for the user, and runs its stages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from kdcli.api import QuietReporter, Reporter
from kdcli.config.files import inline
from kdcli.config.load import Profile, load_profile
from kdcli.config.schema import Settings
from kdcli.distillation.derive import (
    FEW,
    count_cut,
    label_settings,
    student_settings,
    task_settings,
    teacher_settings,
)
from kdcli.distillation.plan import Plan, measure, most_texts, plan_all, plan_minutes
from kdcli.distillation.texts import (
    STDIN,
    TextCounts,
    find_columns,
    find_files,
    first_texts,
    take_texts,
)
from kdcli.errors import DataError, UsageError
from kdcli.evaluate.bench import BenchSubject, cold_start, student_forms
from kdcli.evaluate.results import Results
from kdcli.files import atomic, sha256
from kdcli.models.device import resolve
from kdcli.report.page import report_run
from kdcli.run.paths import artefact
from kdcli.run.runner import RunOptions, run_stages
from kdcli.student.student import Student, load_student
from kdcli.tasks.split import task_from
from kdcli.teacher.model import TeacherSource

REQUEST = "distil.json"  # what was asked for: the same again goes on with the plan that was made
Values = Mapping[str, Any]
Load = Callable[[Values], Profile]  # loads the recipe with settings on top


@dataclass(frozen=True)
class Request:
    """What is asked for; each field is the flag of that name."""

    model: str
    texts: tuple[str, ...]
    minutes: float | None = None
    labels: tuple[str, ...] = ()
    text_col: str | None = None
    text2_col: str | None = None
    label_col: str | None = None


@dataclass(frozen=True)
class DistilResult:
    """A student, where it lies, and how near it comes to its teacher."""

    student: Path  # its folder
    report: Path | None  # the page of the run
    counts: TextCounts  # how many texts there were
    plan: Plan  # what was planned
    seconds: float  # what this launch took
    results: Results  # the comparison of all models
    outlook: str  # what more time would bring
    # the seconds from the first import to the first answer, by model, where they were measured
    cold_start: dict[str, float] = field(default_factory=dict)


@dataclass
class _Prepared:
    """The texts and the plan of a run folder."""

    profile: Profile
    counts: TextCounts
    plan: Plan


def distil(
    request: Request,
    load: Load | None = None,
    *,
    options: RunOptions | None = None,
    offline: bool = False,
    time_starts: bool = False,
    reporter: Reporter | None = None,
) -> DistilResult | Plan:
    """Distil a teacher into a student.

    What can be derived is: the kind of task and the labels from the teacher, columns from the table, held-out texts,
    lengths and sizes from the texts, the plan from the time. ``runs/NAME/profile.toml`` holds it all, and
    ``kd run-all`` repeats it. The same request goes on where a killed one stopped, with the plan that was made.

    Args:
        request: What is asked for.
        load: Loads the recipe; by default the profile ``distil``.
        options: How to run: ``run_dir``, ``force``, ``resume``, ``dry_run`` (returns the plan), ``seeds``, ``track``.
        offline: Download nothing.
        time_starts: Whether to time the cold start of teacher and student.
        reporter: Shows the progress.

    Raises:
        DataError: Texts, labels or the teacher cannot be read, or do not go together.
        MissingError: A file, a model or a package is missing.
        UsageError: The run folder is another run's.
    """
    begin = time.perf_counter()
    reporter, options = reporter or QuietReporter(), options or RunOptions()
    root = options.run_dir or Path("runs") / _name(request.texts)
    files = find_files(request.texts, offline=offline)
    load = load or (lambda values: load_profile("distil", flags=values))
    prepared = _prepare(request, files, root, load, options, begin, reporter)
    _show_plan(prepared, request.minutes, reporter)
    if options.dry_run:
        return prepared.plan
    outcomes = run_stages(None, prepared.profile, options=replace(options, run_dir=root), reporter=reporter)
    by_name = {outcome.name: outcome.result for outcome in outcomes}
    student = artefact(root, "student")
    return DistilResult(
        student,
        report_run(root, new=any(outcome.reasons for outcome in outcomes), reporter=reporter),
        prepared.counts,
        prepared.plan,
        time.perf_counter() - begin,
        by_name["results"],
        outlook(by_name["student"].history, task_from(prepared.profile.settings.task).metric, prepared.counts.beyond),
        _cold_starts(prepared.profile.settings, student) if time_starts else {},
    )


def distil_texts(
    model: str | Path,
    texts: Sequence[str] | Sequence[tuple[str, str]] | str | Path,
    *,
    labels: Sequence[str] = (),
    minutes: float | None = None,
    run_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Student:
    """Distil a teacher into a student, from Python: ``kdcli.distil``.

    Args:
        model: The teacher's folder or hub name.
        texts: A list of texts, or of pairs of texts; or the path of a table.
        labels: The names of the classes, for a zero-shot teacher or one that does not name them.
        minutes: The time there is; by default as long as all texts take.
        run_dir: The run folder to keep; by default a temporary one.
        settings: Settings by dotted key, such as ``{"student.epochs": 5}``.
        reporter: Shows the progress.

    Raises:
        KdError: See ``distil``.
    """
    with TemporaryDirectory(prefix="kd-distil-") as place:
        root = Path(run_dir) if run_dir else Path(place) / "run"
        path, columns = _on_disk(texts, Path(place))
        request = Request(str(model), (str(path),), minutes, tuple(labels), **columns)
        sets = [f"{key}={inline(value)}" for key, value in (settings or {}).items()]
        result = distil(
            request,
            lambda values: load_profile("distil", sets=sets, flags=values),
            options=RunOptions(run_dir=root),
            reporter=reporter,
        )
        assert isinstance(result, DistilResult)
        return load_student(result.student)


def _on_disk(texts: Any, folder: Path) -> tuple[Path, dict[str, str]]:
    """Write texts in memory to a table; return its path and columns."""
    if isinstance(texts, str | Path):
        return Path(texts), {}
    rows = list(texts)
    pairs = bool(rows) and not isinstance(rows[0], str)
    names = ("sentence1", "sentence2") if pairs else ("sentence",)
    for number, row in enumerate(rows, 1):
        parts = row if pairs else (row,)
        if len(parts) != len(names) or not all(isinstance(part, str) for part in parts):
            raise DataError(f"this is not {'a pair of texts' if pairs else 'a text'}: {row!r:.80}", row=number)
    path = folder / "texts.parquet"
    table = {name: [row[side] if pairs else row for row in rows] for side, name in enumerate(names)}
    pl.DataFrame(table, schema=dict.fromkeys(names, pl.String)).write_parquet(path)
    return path, {"text_col": "sentence1", "text2_col": "sentence2"} if pairs else {"text_col": "sentence"}


def _prepare(
    request: Request,
    files: Sequence[Path],
    root: Path,
    load: Load,
    options: RunOptions,
    begin: float,
    reporter: Reporter,
) -> _Prepared:
    """Return the texts and the plan of the run folder, made now unless the same was asked for before."""
    recipe = load({})
    own = _said(recipe)

    def under(values: Values) -> Profile:  # what is derived, but for what the user sets
        return load({key: value for key, value in values.items() if key not in own})

    asked = {**asdict(request), "files": {str(file): sha256(file) for file in files}}
    asked = json.loads(json.dumps({**asked, "settings": recipe.settings.model_dump(mode="json")}))
    known, profile = root / REQUEST, root / "profile.toml"
    if known.is_file() and profile.is_file() and options.resume:
        with suppress(ValueError, KeyError, TypeError):  # a damaged record: it is planned anew
            content = json.loads(known.read_text("utf-8"))
            if content["request"] == asked:
                counts, plan = TextCounts(**content["counts"]), Plan(**content["plan"])
                reporter.info("the texts and the plan are those of the run folder")
                return _Prepared(replace(load_profile(profile, environ={}), name=root.name), counts, plan)
    if (root / "kd.lock").exists() and not known.exists() and not options.force:
        hint = "name another one with --run-dir; --force makes it a run of distil"
        raise UsageError("this run folder is of another command", file=root, hint=hint)
    with TemporaryDirectory() as place:  # of a dry run, which leaves nothing
        folder = (Path(place) if options.dry_run else root) / "texts"
        prepared = _plan(request, files, folder, recipe, under, begin, reporter)
    if not options.dry_run:
        profile.unlink(missing_ok=True)
        content = {"request": asked, "counts": asdict(prepared.counts), "plan": asdict(prepared.plan)}
        with atomic(known) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return replace(prepared, profile=replace(prepared.profile, name=root.name))


def _said(recipe: Profile) -> set[str]:
    """Return the keys that the command line or the environment sets."""
    return {key for key, origin in recipe.origins.items() if origin.startswith(("--", "KD_"))}


def _plan(
    request: Request, files: Sequence[Path], folder: Path, recipe: Profile, load: Load, begin: float, reporter: Reporter
) -> _Prepared:
    """Open the teacher, take the texts, and plan."""
    settings = recipe.settings
    device = resolve(settings.device)
    columns = find_columns(
        files[0], text_col=request.text_col, text2_col=request.text2_col, label_col=request.label_col
    )
    derived: dict[str, Any] = {"task.name": _name(request.texts)}
    derived |= teacher_settings(request.model, request.labels, settings, reporter)
    source = TeacherSource.of(load(derived).settings)
    opened = source.open(request.labels, device=device, precision=settings.precision, reporter=reporter)
    derived |= task_settings(opened, request.labels, columns, reporter)
    derived |= label_settings(columns, opened)
    own = load(derived).settings
    task = task_from(own.task)
    teacher = source.match(opened, task, reporter)
    how = own.task.model_copy(update={"text_columns": columns.texts, "label_column": columns.label or ""})
    said = ", labels in " + columns.label if columns.label else ", no labels"
    reporter.info(f"{files[0].name}: texts in {' and '.join(columns.texts)}{said}")
    limit = 0
    if request.minutes is not None:
        reporter.info("measuring the speed of teacher and student")
        sample = first_texts(files[0], how, task, FEW, QuietReporter())
        likely = load(derived | student_settings(sample, own)).settings
        speeds = measure(teacher, sample, request.minutes, likely, device)
        limit = most_texts(request.minutes, speeds)
    taken = take_texts(files, how, task, limit=limit, seed=own.seed, reporter=reporter)
    derived |= student_settings(taken.rows, own)
    own = load(derived).settings
    if cut := count_cut(taken.rows, own.student.max_length):
        reporter.info(f"the student reads {own.student.max_length} words: {cut:,} texts are longer, and cut")
    n_iter: int | None = own.transfer.lite.n_iter
    if not n_iter and "transfer.lite.n_iter" not in _said(recipe):
        n_iter = None  # as many as are of use
    if request.minutes is None:
        plan = plan_all(len(taken.rows), own, n_iter)
    else:
        plan = plan_minutes(request.minutes, time.perf_counter() - begin, len(taken.rows), speeds, own, n_iter)
    counts = taken.divide(plan.texts, task, folder)
    derived |= {
        "task.data_dir": str(folder),
        "task.gold": counts.labelled,
        "transfer.lite.n_iter": plan.n_iter,
        "student.max_size": plan.words,
        "student.epochs": plan.epochs,
        "student.max_steps": plan.updates,
        "student.eval_steps": plan.eval_steps,
    }
    return _Prepared(load(derived), counts, plan)


def _cold_starts(settings: Settings, student: Path) -> dict[str, float]:
    """Time both models in processes of their own."""
    task, source, device = task_from(settings.task), TeacherSource.of(settings), resolve(settings.device)
    teacher = BenchSubject("teacher", "teacher", source.model, task, device, settings.precision, source)
    forms, _ = student_forms(student, settings.student.model, task)
    return {"teacher": cold_start(teacher), "student": cold_start(forms[-1])}


def _show_plan(prepared: _Prepared, minutes: float | None, reporter: Reporter) -> None:
    counts, plan = prepared.counts, prepared.plan
    beyond = f", {counts.beyond:,} beyond the plan" if counts.beyond else ""
    test = f", {counts.test:,} for the final figures" if counts.test else ""
    reporter.info(f"{counts.read:,} texts read, {counts.duplicates:,} copies left out{beyond}")
    reporter.info(f"{counts.train:,} texts to learn from, {counts.dev:,} to choose by{test}")
    made = f"{plan.n_iter} fabricated ones for each, " if plan.n_iter else ""
    reporter.info(f"the plan: {made}{plan.updates:,} updates of the student")
    if plan.seconds:
        parts = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in plan.seconds.items())
        total = sum(plan.seconds.values()) / 60
        reporter.info(f"in minutes: {parts}; in all {total:.1f}")
        if minutes and total > 1.15 * minutes:
            what = f"the least that makes a student takes about {total:.1f} minutes"
            reporter.warn(f"{what}, more than the {minutes:g} of --minutes")


def outlook(history: Sequence[Mapping[str, float]], metric: str, beyond: int) -> str:
    """Say what more time would bring: by how much the last third of the training has raised the best dev score."""
    scores = [100 * evaluation[metric] for evaluation in history]
    if len(scores) < 3:
        return "the training was too short to say what more time would bring"
    third = len(scores) // 3
    gain = max(scores) - max(scores[:-third])
    if gain < 0.1:
        more = f"time for {beyond:,} more texts may bring more" if beyond else "more time would bring little"
        return f"the last third of the training did not raise the dev score: {more}"
    return f"the last third of the training raised the dev score by {gain:.1f} points: more time would bring more"


def _name(texts: Sequence[str]) -> str:
    """Return the name of a run: the first file's, without suffixes."""
    first = texts[0]
    stem = "stdin" if first == STDIN else Path(first.rstrip("/")).name.partition(".")[0].replace("*", "")
    return stem or "texts"
