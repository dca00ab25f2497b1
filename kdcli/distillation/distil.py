"""``kd distil``: a teacher and texts in, a student out. It makes a profile for the user, and runs its stages."""

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
from kdcli.config.schema import DeferralSettings, Settings
from kdcli.distillation import derive
from kdcli.distillation.choose import LARGER, POOL, choose_texts
from kdcli.distillation.plan import Limits, Plan, make_plan, measure, outlook
from kdcli.distillation.texts import (
    STDIN,
    Columns,
    TextCounts,
    fewest_texts,
    find_columns,
    find_files,
    first_texts,
    on_disk,
    take_texts,
)
from kdcli.errors import KdError, UsageError
from kdcli.evaluate.bench import BenchSubject, cold_start, student_forms
from kdcli.evaluate.pair import CalibrationResult
from kdcli.evaluate.results import Results
from kdcli.files import sha256, write_json, write_text
from kdcli.models.classifier import are_generic
from kdcli.models.device import fastest_precision, resolve
from kdcli.report.page import report_run
from kdcli.run import REQUEST, artefact
from kdcli.run.runner import RunOptions, run_stages
from kdcli.student.deferral import texts_needed
from kdcli.student.student import Student, load_student
from kdcli.tables.read import form_of
from kdcli.tasks.detect import detect
from kdcli.tasks.split import task_from
from kdcli.teacher.model import TeacherSource

_OWN_TABLES = {"task.text_columns": (), "task.label_column": "", "task.label_columns": ()}
"""The columns of the run's own tables are kd's."""
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
    # by model, where a price was given: the seconds from the first import to the first answer
    cold_start: dict[str, float] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)  # and what a million predictions cost at that price
    deferral: CalibrationResult | None = None  # what the student answers itself; None of too few texts


def distil(
    request: Request,
    load: Load | None = None,
    *,
    options: RunOptions | None = None,
    offline: bool = False,
    price: float | None = None,
    reporter: Reporter | None = None,
) -> DistilResult | Plan:
    """Distil a teacher into a student.

    What can be derived is: the kind of task and the labels from the teacher, columns from the table, held-out texts,
    lengths and sizes from the texts, the plan from the time. ``runs/NAME/profile.toml`` holds it all, and
    ``kd run-all`` repeats it. The same request goes on where a killed one stopped, with the plan that was made.

    ``load`` loads the recipe, by default the profile ``distil``. With ``options.dry_run`` the plan alone is made. With
    the ``price`` of an hour of this machine, the cost of predictions is reckoned, and the cold starts are timed.
    """
    begin = time.perf_counter()
    reporter, options = reporter or QuietReporter(), options or RunOptions()
    root = options.run_dir or Path("runs") / _name(request.texts)
    options = replace(options, run_dir=root)
    files = find_files(request.texts, offline=offline)
    load = load or (lambda values: load_profile("distil", flags=values))
    profile, counts, plan = _prepare(request, files, load, options, begin, reporter)
    _show_plan(counts, plan, profile.settings.deferral, request, reporter)
    if options.dry_run:
        return plan
    if (root / POOL).exists() and not (root / "texts/train.parquet").exists():
        choose_texts(root, profile.settings, counts.train, reporter)
    outcomes = run_stages(None, profile, options=options, reporter=reporter)
    by_name = {outcome.name: outcome.result for outcome in outcomes}
    settings, student, results = profile.settings, artefact(root, "student"), by_name["results"]
    ran = {outcome.name for outcome in outcomes if outcome.reasons}
    starts, costs, new = dict[str, float](), dict[str, float](), bool(ran)
    if price is not None:
        record = json.loads((root / REQUEST).read_text("utf-8"))  # the page reads it
        starts = ("results" not in ran and record.get("cold_start")) or _cold_starts(settings, root, reporter)
        costs, new = {row.model: row.cost(price) for row in results.rows}, new or record.get("price") != price
        write_json(root / REQUEST, {**record, "price": price, "cold_start": starts})
    return DistilResult(
        student,
        report_run(root, new=new, reporter=reporter),
        counts,
        plan,
        time.perf_counter() - begin,
        results,
        outlook(by_name["student"].history, task_from(settings.task).metric, counts.beyond),
        starts,
        costs,
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
        student = load_student(result.student)
        student.folder = student.folder if run_dir else None
        return student


def _prepare(
    request: Request, files: Sequence[Path], load: Load, options: RunOptions, begin: float, reporter: Reporter
) -> tuple[Profile, TextCounts, Plan]:
    """Return what is derived and planned for the run folder: now, unless the same was asked for before."""
    recipe = load({})
    root = options.root(recipe)
    record, profile = root / REQUEST, root / "profile.toml"
    asked = {**asdict(request), "files": {str(file): sha256(file) for file in files}}
    # Another agreement changes neither the plan nor the student.
    asked = json.loads(json.dumps({**asked, "settings": recipe.settings.model_dump(mode="json", exclude={"deferral"})}))
    if record.is_file() and profile.is_file() and options.resume:
        with suppress(ValueError, KeyError, TypeError):  # a damaged record: it is planned anew
            known = json.loads(record.read_text("utf-8"))
            if known["request"] == asked:
                kept = load_profile(profile, environ={})
                settings = kept.settings.model_copy(update={"deferral": recipe.settings.deferral})
                counts, plan = TextCounts(**known["counts"]), Plan(**known["plan"])
                reporter.info("the texts and the plan are those of the run folder")
                return replace(kept, name=root.name, settings=settings), counts, plan
            if (of := known["request"])["model"] != asked["model"] and not options.force:
                hint = "name another one with --run-dir; --force replaces what it holds"
                raise UsageError(f"this run folder holds a student of {of['model']}", file=root, hint=hint)
            changed = ", ".join(key for key, value in asked.items() if of.get(key) != value)
            reporter.warn(f"{root}: its student is replaced, since {changed} changed; --run-dir names another folder")
    if (root / "kd.lock").exists() and not record.exists() and not options.force:
        hint = "name another one with --run-dir; --force makes it a run of distil"
        raise UsageError("this run folder is of another command", file=root, hint=hint)
    with TemporaryDirectory() as place:
        planned = replace(options, run_dir=Path(place)) if options.dry_run else options  # that leaves nothing
        derived, counts, plan, columns = _plan(request, files, recipe, load, planned, begin, reporter)
    derived = replace(derived, name=root.name)
    if not options.dry_run:
        profile.unlink(missing_ok=True)
        made = {"counts": asdict(counts), "plan": asdict(plan), "columns": columns.texts, "label_column": columns.label}
        write_json(record, {"request": asked, **made})
        write_text(profile, derived.to_toml())
    return derived, counts, plan


def _plan(
    request: Request,
    files: Sequence[Path],
    recipe: Profile,
    load: Load,
    options: RunOptions,
    begin: float,
    reporter: Reporter,
) -> tuple[Profile, TextCounts, Plan, Columns]:
    """Open the teacher, take the texts, and plan; the last value is the columns of the tables."""
    root = options.root(recipe)
    said = {key for key, origin in recipe.origins.items() if origin.startswith(("--", "KD_"))}
    settings = recipe.settings
    derived: dict[str, Any] = {"task.name": _name(request.texts)}

    def profile() -> Profile:  # with what is derived, but for what the user sets
        return load({key: value for key, value in derived.items() if key not in said} | _OWN_TABLES)

    n_iter = settings.transfer.lite.n_iter or (0 if "transfer.lite.n_iter" in said else None)  # as many as are of use
    epochs = settings.student.epochs if "student.epochs" in said else None
    limits = Limits(request.minutes, request.budget, n_iter, epochs)
    limits.check(settings)
    device, labels = resolve(settings.device), request.labels
    first = next((file for file in files if form_of(file) != "txt"), files[0])
    text, text2 = (*settings.task.text_columns, None, None)[:2]
    if request.text_col:
        text, text2 = request.text_col, request.text2_col
    columns = find_columns(first, text, text2, request.label_col or settings.task.label_column or None, labels)
    derived |= derive.teacher_settings(request.model, labels, settings, reporter)
    source = TeacherSource.of(profile().settings, logits=artefact(root, "logits"))
    if source.is_remote and n_iter is None:
        limits = replace(limits, n_iter=0)  # its answers have a price
    named = "precision" in said or settings.teacher.export.precision is not None or settings.precision != "fp32"
    if not (source.is_remote or named) and (best := fastest_precision(device)) != "fp32":
        derived["teacher.export.precision"] = best
        reporter.info(f"the teacher labels texts in {best}, which is faster here; --precision fp32 turns that off")
    opened = source.open(labels, device=device, precision=profile().settings.export_precision, reporter=reporter)
    if not (columns.label or request.label_col or are_generic(opened.labels)):
        columns = find_columns(first, text, text2, labels=opened.labels)
    derived |= derive.task_settings(opened, labels, columns, reporter) | derive.label_settings(columns, opened)
    if not hasattr(opened, "represent"):
        derived["student.repr_weight"] = 0.0
    own = profile().settings
    task = task_from(own.task)
    teacher = source.match(opened, task, reporter)
    columns_of = dict(zip(settings.task.labels, settings.task.label_columns, strict=False))
    how = own.task.model_copy(
        update={
            "text_columns": columns.texts,
            "label_column": columns.label or "",
            "label_columns": tuple(columns_of.get(label, label) for label in task.labels) if columns_of else (),
        }
    )
    derive.check_labels(columns, task, first, reporter)
    layouts = {file: detect(file, how, task) for file in files}  # by the names of the columns in the first table
    labelled = bool(columns.label or (request.label_col != "none" and layouts[first].sets))
    speeds = None
    if (request.minutes or options.dry_run) and not (options.dry_run and source.is_remote):  # which would be asked
        sample = first_texts(first, how, task, derive.FEW)
        derived |= derive.student_settings(sample, own)
        speeds = measure(teacher, sample, request.minutes or 0, profile().settings, device, reporter)
    most, choose = limits.most_texts(speeds), own.transfer.choose != "random"
    more = {"limit": most * (LARGER if choose else 1), "seed": own.seed}
    taken = take_texts(files, how, task, labelled=labelled, **more, reporter=reporter)
    few = taken.rows.head(most or len(taken.rows))
    if speeds:
        speeds = replace(speeds, row=speeds.row * options.seeds * (1 + taken.labelled))  # labels train a baseline, too
    derived |= derive.student_settings(few, own)
    own = profile().settings
    if cut := derive.count_cut(few, own.student.max_length):
        reporter.info(f"the student reads {own.student.max_length} words: {cut:,} texts are longer, and cut")
    plan = make_plan(len(few), time.perf_counter() - begin, speeds, limits, own, len(few) < len(taken.rows))
    if foreseen := source.estimate(task, taken.rows[: plan.texts]):
        every = (f"{name.replace('_', ' ')} {(1 + plan.n_iter) * value:,.4g}" for name, value in foreseen.items())
        reporter.info(f"the teacher's answers will take about: {', '.join(every)}")
    counts = taken.divide(plan.texts, task, root / "texts", choose=choose)
    artefact(root, "known").unlink(missing_ok=True)  # of an earlier plan
    if counts.labelled:
        derived |= teacher.fit(pl.read_parquet(root / "texts/dev.parquet"), reporter)
    derived |= {
        "task.data_dir": str(root / "texts"),
        "task.gold": counts.labelled,
        "transfer.lite.n_iter": plan.n_iter,
        "student.max_size": plan.words,
        "student.epochs": plan.epochs,
        "student.max_steps": plan.updates,
        "student.eval_steps": plan.eval_steps,
    }
    return profile(), counts, plan, columns


def _cold_starts(settings: Settings, root: Path, reporter: Reporter) -> dict[str, float]:
    task, source, device = task_from(settings.task), TeacherSource.of(settings), resolve(settings.device)
    teacher = BenchSubject("teacher", "teacher", source.model, task, device, settings.precision, source)
    names = ("student", "baseline") if settings.task.gold else ("student",)
    models = {name: student_forms(artefact(root, name), settings.student.model, task)[-1] for name in names}
    models |= {} if source.is_remote else {"teacher": teacher}
    try:
        return {name: cold_start(model) for name, model in models.items()}
    except KdError as error:  # the student is there all the same
        reporter.warn(f"the cold starts are not measured: {error.what}")
        return {}


def _show_plan(
    counts: TextCounts, plan: Plan, deferral: DeferralSettings, request: Request, reporter: Reporter
) -> None:
    beyond = f", {counts.beyond:,} beyond the plan" if counts.beyond else ""
    test = f", {counts.test:,} for the final figures" if counts.test else ""
    reporter.info(f"{counts.read:,} texts read, {counts.duplicates:,} copies left out{beyond}")
    reporter.info(f"{counts.train:,} texts to learn from, {counts.dev:,} to choose by{test}")
    if deferral.calibrate and counts.test < (needed := texts_needed(deferral.agree)):
        what = f"an agreement of {deferral.agree:g} with the teacher cannot be promised"
        why = f"that takes {needed:,} texts for the final figures, one in ten of {fewest_texts(needed):,} at least"
        reporter.info(f"{what}: {why}")
    made = f", {plan.n_iter} fabricated for each to learn from among them" if plan.n_iter else ""
    reporter.info(f"the plan: {plan.labelled:,} texts for the teacher{made}; {plan.updates:,} updates of the student")
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
