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
from kdcli.distillation import derive
from kdcli.distillation.plan import Plan, measure, most_texts, outlook, plan_all, plan_minutes, within_budget
from kdcli.distillation.texts import (
    STDIN,
    TextCounts,
    fewest_texts,
    find_columns,
    find_files,
    first_texts,
    on_disk,
    take_texts,
)
from kdcli.errors import UsageError
from kdcli.evaluate.bench import BenchSubject, cold_start, student_forms
from kdcli.evaluate.pair import CalibrationResult
from kdcli.evaluate.results import Results
from kdcli.files import atomic, sha256
from kdcli.models.device import resolve
from kdcli.report.page import report_run
from kdcli.run.paths import REQUEST, artefact
from kdcli.run.runner import RunOptions, run_stages
from kdcli.student.deferral import texts_needed
from kdcli.student.student import Student, load_student
from kdcli.tasks.split import task_from
from kdcli.teacher.model import TeacherSource

Values = Mapping[str, Any]
Load = Callable[[Values], Profile]  # loads the recipe with settings on top


@dataclass(frozen=True)
class Request:
    """What is asked for; each field is the flag of that name."""

    model: str
    texts: tuple[str, ...]
    minutes: float | None = None
    budget: int | None = None
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
    deferral: CalibrationResult | None = None  # what the student answers itself; None of too few texts


@dataclass
class _Prepared:
    """The texts and the plan of a run folder."""

    profile: Profile
    counts: TextCounts
    plan: Plan
    columns: tuple[str, ...] = ()  # of the texts, in the user's files


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
    _show_plan(prepared, request, reporter)
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
        by_name.get("calibrate"),
    )


def distil_texts(
    model: str | Path,
    texts: Sequence[str] | Sequence[tuple[str, str]] | str | Path,
    *,
    labels: Sequence[str] = (),
    minutes: float | None = None,
    budget: int | None = None,
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
        budget: The most texts that the teacher labels; by default all.
        run_dir: The run folder to keep; by default a temporary one.
        settings: Settings by dotted key, such as ``{"student.epochs": 5}``.
        reporter: Shows the progress.

    Raises:
        KdError: See ``distil``.
    """
    with TemporaryDirectory(prefix="kd-distil-") as place:
        root = Path(run_dir) if run_dir else Path(place) / "run"
        path, columns = on_disk(texts, Path(place))
        request = Request(str(model), (str(path),), minutes, budget, tuple(labels), **columns)
        sets = [f"{key}={inline(value)}" for key, value in (settings or {}).items()]
        result = distil(
            request,
            lambda values: load_profile("distil", sets=sets, flags=values),
            options=RunOptions(run_dir=root),
            reporter=reporter,
        )
        assert isinstance(result, DistilResult)
        return load_student(result.student)


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
    # Another agreement changes neither the plan nor the student.
    asked = json.loads(json.dumps({**asked, "settings": recipe.settings.model_dump(mode="json", exclude={"deferral"})}))
    known, profile = root / REQUEST, root / "profile.toml"
    if known.is_file() and profile.is_file() and options.resume:
        with suppress(ValueError, KeyError, TypeError):  # a damaged record: it is planned anew
            content = json.loads(known.read_text("utf-8"))
            if content["request"] == asked:
                counts, plan = TextCounts(**content["counts"]), Plan(**content["plan"])
                reporter.info("the texts and the plan are those of the run folder")
                kept = load_profile(profile, environ={})
                settings = kept.settings.model_copy(update={"deferral": recipe.settings.deferral})
                return _Prepared(replace(kept, name=root.name, settings=settings), counts, plan)
    if (root / "kd.lock").exists() and not known.exists() and not options.force:
        hint = "name another one with --run-dir; --force makes it a run of distil"
        raise UsageError("this run folder is of another command", file=root, hint=hint)
    with TemporaryDirectory() as place:  # of a dry run, which leaves nothing
        folder = (Path(place) if options.dry_run else root) / "texts"
        prepared = _plan(request, files, folder, recipe, under, options, begin, reporter)
    if not options.dry_run:
        profile.unlink(missing_ok=True)
        content = {"request": asked, "counts": asdict(prepared.counts), "plan": asdict(prepared.plan)}
        content["columns"] = prepared.columns
        with atomic(known) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return replace(prepared, profile=replace(prepared.profile, name=root.name))


def _said(recipe: Profile) -> set[str]:
    """Return the keys that the command line or the environment sets."""
    return {key for key, origin in recipe.origins.items() if origin.startswith(("--", "KD_"))}


def _plan(
    request: Request,
    files: Sequence[Path],
    folder: Path,
    recipe: Profile,
    load: Load,
    options: RunOptions,
    begin: float,
    reporter: Reporter,
) -> _Prepared:
    """Open the teacher, take the texts, and plan."""
    settings = recipe.settings
    n_iter: int | None = settings.transfer.lite.n_iter
    if not n_iter and "transfer.lite.n_iter" not in _said(recipe):
        n_iter = None  # as many as are of use
    limits = [] if request.budget is None else [within_budget(request.budget, n_iter, settings)]
    device = resolve(settings.device)
    columns = find_columns(
        files[0], text_col=request.text_col, text2_col=request.text2_col, label_col=request.label_col
    )
    derived: dict[str, Any] = {"task.name": _name(request.texts)}
    derived |= derive.teacher_settings(request.model, request.labels, settings, reporter)
    source = TeacherSource.of(load(derived).settings, logits=artefact(folder.parent, "logits"))
    if source.is_remote:
        n_iter = n_iter or 0  # its answers have a price
    opened = source.open(request.labels, device=device, precision=settings.precision, reporter=reporter)
    derived |= derive.task_settings(opened, request.labels, columns, reporter)
    derived |= derive.label_settings(columns, opened)
    if not hasattr(opened, "represent"):
        derived["student.repr_weight"] = 0.0
    own = load(derived).settings
    task = task_from(own.task)
    teacher = source.match(opened, task, reporter)
    how = own.task.model_copy(update={"text_columns": columns.texts, "label_column": columns.label or ""})
    said = ", labels in " + columns.label if columns.label else ", no labels"
    reporter.info(f"{files[0].name}: texts in {' and '.join(columns.texts)}{said}")
    derive.check_labels(columns, task, files[0], reporter)
    speeds = None
    if (request.minutes or options.dry_run) and not (options.dry_run and source.is_remote):  # which would be asked
        sample = first_texts(files[0], how, task, derive.FEW, QuietReporter())
        likely = load(derived | derive.student_settings(sample, own)).settings
        speeds = measure(teacher, sample, request.minutes or 0, likely, device, reporter)
    if request.minutes and speeds:
        limits.append(most_texts(request.minutes, speeds))
    taken = take_texts(files, how, task, limit=min(limits, default=0), seed=own.seed, reporter=reporter)
    if speeds:
        speeds = replace(speeds, row=speeds.row * options.seeds * (1 + taken.labelled))  # labels train a baseline, too
    derived |= derive.student_settings(taken.rows, own)
    own = load(derived).settings
    if cut := derive.count_cut(taken.rows, own.student.max_length):
        reporter.info(f"the student reads {own.student.max_length} words: {cut:,} texts are longer, and cut")
    spent = time.perf_counter() - begin
    if request.minutes and speeds:
        plan = plan_minutes(request.minutes, spent, len(taken.rows), speeds, own, n_iter, request.budget)
    else:
        plan = plan_all(len(taken.rows), spent, speeds, own, n_iter, request.budget)
    if foreseen := source.estimate(task, taken.rows[: plan.texts]):
        every = (f"{name.replace('_', ' ')} {(1 + plan.n_iter) * value:,.4g}" for name, value in foreseen.items())
        reporter.info(f"the teacher's answers will take about: {', '.join(every)}")
    counts = taken.divide(plan.texts, task, folder)
    if counts.labelled:
        derived |= teacher.fit(pl.read_parquet(folder / "dev.parquet"), reporter)
    derived |= {
        "task.data_dir": str(folder),
        "task.gold": counts.labelled,
        "transfer.lite.n_iter": plan.n_iter,
        "student.max_size": plan.words,
        "student.epochs": plan.epochs,
        "student.max_steps": plan.updates,
        "student.eval_steps": plan.eval_steps,
    }
    return _Prepared(load(derived), counts, plan, columns.texts)


def _cold_starts(settings: Settings, student: Path) -> dict[str, float]:
    """Time both models in processes of their own."""
    task, source, device = task_from(settings.task), TeacherSource.of(settings), resolve(settings.device)
    teacher = BenchSubject("teacher", "teacher", source.model, task, device, settings.precision, source)
    forms, _ = student_forms(student, settings.student.model, task)
    models = {"student": forms[-1], **({} if source.is_remote else {"teacher": teacher})}
    return {name: cold_start(model) for name, model in models.items()}


def _show_plan(prepared: _Prepared, request: Request, reporter: Reporter) -> None:
    counts, plan = prepared.counts, prepared.plan
    beyond = f", {counts.beyond:,} beyond the plan" if counts.beyond else ""
    test = f", {counts.test:,} for the final figures" if counts.test else ""
    reporter.info(f"{counts.read:,} texts read, {counts.duplicates:,} copies left out{beyond}")
    reporter.info(f"{counts.train:,} texts to learn from, {counts.dev:,} to choose by{test}")
    deferral = prepared.profile.settings.deferral
    if deferral.calibrate and counts.test < (needed := texts_needed(deferral.agree)):
        what = f"an agreement of {deferral.agree:g} with the teacher cannot be promised"
        why = f"that takes {needed:,} texts for the final figures, one in ten of {fewest_texts(needed):,} at least"
        reporter.info(f"{what}: {why}")
    made = f"{plan.n_iter} fabricated ones for each, " if plan.n_iter else ""
    reporter.info(f"the plan: {made}{plan.labelled:,} texts for the teacher, {plan.updates:,} updates of the student")
    if request.budget and not counts.beyond:
        reporter.info(f"the budget of {request.budget:,} suffices for all texts")
    if plan.seconds:
        parts = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in plan.seconds.items())
        total = sum(plan.seconds.values()) / 60
        reporter.info(f"about {total:.1f} minutes in all: {parts}")
        if request.minutes and total > 1.15 * request.minutes:
            what = f"the least that makes a student takes about {total:.1f} minutes"
            reporter.warn(f"{what}, more than the {request.minutes:g} of --minutes")


def _name(texts: Sequence[str]) -> str:
    """Return the name of a run: the first file's, without suffixes."""
    first = texts[0]
    stem = "stdin" if first == STDIN else Path(first.rstrip("/")).name.partition(".")[0].replace("*", "")
    return stem or "texts"
