"""The results of a run: teacher, labels-only baseline and distilled student side by side."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.evaluate.linear import Linear, train_linear
from kdcli.files import write_json
from kdcli.student.student import WEIGHTS, Student, load_student
from kdcli.tables.write import write_table
from kdcli.tasks.answers import Outputs, answers, at_half, written
from kdcli.tasks.labels import encode_labels
from kdcli.tasks.metrics import Floats, metric_title, resampled, score
from kdcli.tasks.statistics import Fidelity, Interval, bounds, fidelity
from kdcli.teacher.logits import labels_of

if TYPE_CHECKING:
    from kdcli.teacher.model import Teacher, TeacherSource

Logits = dict[str, NDArray[np.float32]]  # ``float32 [rows, task.outputs]`` by table
Range = tuple[float, float]
"""A 95 % interval: percentiles of a bootstrap over the texts, the same resamples for all models."""
MODELS = ("teacher", "baseline", "tf-idf", "student")
"""The models of the table, in order; the second and the third are not always there."""


def percent(values: Sequence[float]) -> str:
    """Write the mean of the seeds' scores in percent, and their standard deviation where there are several."""
    mean = f"{100 * fmean(values):.1f}"
    return f"{mean} ± {100 * stdev(values):.1f}" if len(values) > 1 else mean


@dataclass(frozen=True)
class Row:
    """One model of the results table."""

    model: str  # one of MODELS
    scores: dict[str, dict[str, list[float]]]  # by table and metric, of each seed
    parameters: int
    parameters_without_embeddings: int  # those that are not word vectors
    megabytes: float  # of its weights on disk, 10^6 bytes
    per_second: float  # texts, from text to logits, each fresh; baseline and student, one architecture, share it
    intervals: dict[str, dict[str, Range]] = field(default_factory=dict)  # of the mean score of the seeds
    fidelity: dict[str, Fidelity] = field(default_factory=dict)  # by table, of its first seed; the teacher has none

    def cost(self, price: float) -> float:
        """Return what a million predictions cost at the price of an hour of this machine."""
        return price * 1e6 / self.per_second / 3600


@dataclass(frozen=True)
class Results:
    """The results table."""

    metrics: list[str]  # the first one chose among models
    rows: list[Row]  # of MODELS, in their order
    # by table and metric, (student - baseline) / (teacher - baseline) of the mean scores (as from table 1 of Tang et
    # al. 2019); None where the 95 % interval of teacher - baseline is not above 0
    gap_closed: dict[str, dict[str, float | None]]
    notes: list[str] = field(default_factory=list)  # what a reader of the table must know
    titles: dict[str, str] = field(default_factory=dict)  # the metrics' names for people: which F1 it is
    gap_intervals: dict[str, dict[str, Range | None]] = field(default_factory=dict)  # of these shares
    gold: bool = True  # whether the labels are gold ones, and not the teacher's answers

    @property
    def scored(self) -> list[tuple[str, str]]:
        """The tables and metrics that were scored, in order."""
        return [(table, metric) for table, shares in self.gap_closed.items() for metric in shares]

    def __post_init__(self) -> None:
        """Refuse what no comparison has written."""
        models = [row.model for row in self.rows]
        needed = {"teacher", "student", *(["baseline"] if self.gold else [])}
        if models != [model for model in MODELS if model in models] or not needed <= set(models):
            raise ValueError(f"the rows are not {', '.join(MODELS)}")
        if not self.metrics or not self.gap_closed or not all(self.gap_closed.values()):
            raise ValueError("there are no scores")
        for table, shares in self.gap_closed.items():
            if not all(row.scores.get(table, {}).get(metric) for row in self.rows for metric in shares):
                raise ValueError(f"a model has no scores on {table}")


def compare(
    *,
    teacher: "TeacherSource",
    students: Mapping[str, Sequence[Path]],
    joined: Path,
    tables: Mapping[str, pl.DataFrame],
    task: Task,
    gold: bool = True,
    device: str,
    precision: str,
    output: Path,
    predictions: Path,
    unanswered: int = 0,
    reporter: Reporter,
) -> Results:
    """Score and time all models on the same texts; write the results to ``output``, as JSON, and the logits.

    ``students`` are the folders of ``baseline``, if there is one, and of ``student``, one a seed. Rows without a label
    are left out; without ``gold`` labels the teacher's answers are labels. The table ``predictions`` has the columns
    ``table``, ``index``, the texts, ``label``, and the logits ``teacher_0``, ``teacher_1``, ... of each model's first
    seed, less its thresholds. ``unanswered`` rows of the transfer set had no answer of the teacher's.
    """
    labelled, notes = _labelled(tables) if gold else (dict(tables), [])
    models = {name: _Measured() for name in ("teacher", *students)}
    with reporter.progress("compare", 2 + sum(map(len, students.values())), "models") as progress:
        big = teacher.load(task, device=device, precision=precision)  # what there is to say was said at its export
        models["teacher"].measure(big, big.megabytes, labelled)
        labelled, left_out = _answered(models["teacher"], labelled)
        notes += left_out
        big.warn_of_cuts(reporter)
        progress.advance()
        for name, folder in ((name, folder) for name, folders in students.items() for folder in folders):
            models[name].measure(load_student(folder, device=device), (folder / WEIGHTS).stat().st_size / 1e6, labelled)
            progress.advance()
        if linear := train_linear(joined, task):
            models.setdefault("tf-idf", _Measured()).measure(linear, linear.megabytes, labelled)
        progress.advance()
    models = {name: models[name] for name in MODELS if name in models}
    if unanswered:
        notes.append(f"{unanswered:,} rows of the transfer set are left out, since the teacher has not answered them")
    if teacher.is_remote:
        notes.append("the teacher answers over the network: its speed is that of the server, its price that of tokens")
    if not gold:
        found = models["teacher"].logits[0]
        labelled = {name: table.with_columns(labels_of(found[name], task)) for name, table in labelled.items()}
    notes += _answers({name: model.at_half[0] for name, model in models.items()}, task)
    results = _results(models, labelled, task, notes, gold)
    notes += _beaten(results)
    for note in notes:
        reporter.warn(note)
    shown = {name: model.at_half[0] for name, model in models.items() if name != "tf-idf"}
    write_table(predictions, _with_logits(labelled, shown, task))
    write_json(output, asdict(results))
    return results


def _labelled(tables: Mapping[str, pl.DataFrame]) -> tuple[dict[str, pl.DataFrame], list[str]]:
    """Return the rows that have a label, and a note for each table that lacks some."""
    found = {name: table.drop_nulls("label") for name, table in tables.items()}
    lacking = {name: len(tables[name]) - len(table) for name, table in found.items() if len(table)}
    notes = [f"{name}: {rows:,} rows without a label are left out" for name, rows in lacking.items() if rows]
    return {name: found[name] for name in lacking}, notes


def _answered(teacher: "_Measured", tables: Mapping[str, pl.DataFrame]) -> tuple[dict[str, pl.DataFrame], list[str]]:
    """Leave out the rows that the teacher has not answered; return the tables, and notes."""
    there = {name: np.isfinite(found[:, 0]) for name, found in teacher.logits[0].items()}
    teacher.logits[0] = {name: found[there[name]] for name, found in teacher.logits[0].items()}
    what = "rows are left out, since the teacher has not answered them"
    notes = [f"{name}: {(~rows).sum():,} {what}" for name, rows in there.items() if not rows.all()]
    return {name: table.filter(there[name]) for name, table in tables.items()}, notes


@dataclass
class _Measured:
    """A model on all tables: the logits of each seed, the rows read and the seconds it took, and its size."""

    logits: list[Logits] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)  # of each seed, which has thresholds of its own
    rows: int = 0
    seconds: float = 0.0
    size: tuple[int, int, float] = (0, 0, 0.0)

    def measure(
        self, model: "Teacher | Student | Linear", megabytes: float, tables: Mapping[str, pl.DataFrame]
    ) -> None:
        """Add a seed; each text is fresh, and read once."""
        columns = {name: [table[column].to_list() for column in model.task.columns] for name, table in tables.items()}
        if not hasattr(model, "try_out"):  # a teacher was tried out when it was loaded
            model.logits([["a"]] * len(model.task.columns))  # what only a first call takes
        saved, begin = getattr(model, "saved_seconds", 0.0), time.perf_counter()
        self.logits.append({name: model.logits(texts) for name, texts in columns.items()})
        self.seconds += time.perf_counter() - begin + getattr(model, "saved_seconds", 0.0) - saved
        self.tasks.append(model.task)
        self.rows += sum(map(len, tables.values()))
        self.size = model.parameters, model.parameters_without_embeddings, megabytes

    @property
    def at_half(self) -> list[Logits]:
        """The logits of each seed, counted from the model's thresholds: 0.5 is the threshold of each label."""
        seeds = zip(self.logits, self.tasks, strict=True)
        return [{name: at_half(found, task) for name, found in logits.items()} for logits, task in seeds]


def _results(
    models: Mapping[str, _Measured], tables: Mapping[str, pl.DataFrame], task: Task, notes: list[str], gold: bool
) -> Results:
    seeds, found = {model: measured.at_half for model, measured in models.items()}, {}
    for name, table in tables.items():
        outputs = {model: [seed[name] for seed in own] for model, own in seeds.items()}
        found[name] = score_models(task, outputs, encode_labels(table["label"], task, file=name))
    titles = {metric: metric_title(task, metric) for metric in (task.metric, *task.more_metrics)}
    if not gold and "accuracy" in titles:
        titles["accuracy"] = "agreement with the teacher"
    rows, alike, teacher = [], ("baseline", "student"), models["teacher"].logits[0]
    for model, measured in models.items():
        scores = {name: one.scores[model] for name, one in found.items()}
        ranges = {name: one.intervals[model] for name, one in found.items()}
        # Baseline and student are one architecture, and measured together.
        same = [models[name] for name in alike if name in models] if model in alike else [measured]
        speed = sum(one.rows for one in same) / sum(one.seconds for one in same)
        logits = {} if model == "teacher" else measured.logits[0]
        near = {name: fidelity(own, teacher[name], measured.tasks[0]) for name, own in logits.items()}
        rows.append(Row(model, scores, *measured.size, speed, ranges, near))
    gaps = {name: one.gaps for name, one in found.items()}
    shares = {name: {key: gap.value if gap else None for key, gap in of.items()} for name, of in gaps.items()}
    sure = {name: {key: (one.low, one.high) if one else None for key, one in of.items()} for name, of in gaps.items()}
    return Results(list(titles), rows, shares, notes, titles, sure, gold)


@dataclass(frozen=True)
class ModelScores:
    """Teacher, baseline and student on one table: by model and metric, and by metric the share of the gap."""

    scores: dict[str, dict[str, list[float]]]
    intervals: dict[str, dict[str, Range]]
    gaps: dict[str, Interval | None]


def score_models(task: Task, outputs: Mapping[str, Sequence[Outputs]], gold: NDArray[Any]) -> ModelScores:
    """Score the seeds of each model, ``[rows, task.outputs]``; the intervals are over these texts, not over seeds."""
    found = {model: [score(task, seed, gold) for seed in seeds] for model, seeds in outputs.items()}
    drawn = iter(resampled(task, [seed for seeds in outputs.values() for seed in seeds], gold))
    draws = {model: [next(drawn) for _ in seeds] for model, seeds in outputs.items()}
    result = ModelScores({model: {} for model in outputs}, {model: {} for model in outputs}, {})
    for metric in (task.metric, *task.more_metrics):
        means = {model: np.mean([seed[metric] for seed in seeds], axis=0) for model, seeds in draws.items()}
        for model, seeds in found.items():
            result.scores[model][metric] = [seed[metric] for seed in seeds]
            result.intervals[model][metric] = bounds(means[model])
        averages = {model: fmean(seeds[metric]) for model, seeds in result.scores.items()}
        result.gaps[metric] = gap_closed(averages, means) if "baseline" in averages else None
    return result


def gap_closed(scores: Mapping[str, float], drawn: Mapping[str, Floats]) -> Interval | None:
    """Return the share of the gap between baseline and teacher that the student closes, with its 95 % interval.

    None where the texts do not show a gap: the interval of teacher - baseline is not above 0. ``scores`` are the means
    over the seeds, ``drawn`` the same in each resample of the texts, ``[resamples]``.
    """
    gaps = drawn["teacher"] - drawn["baseline"]
    gap = scores["teacher"] - scores["baseline"]
    if gap <= 0 or bounds(gaps)[0] <= 0:
        return None
    there = gaps > 0  # but for a few resamples; in those there is no share
    shares = (drawn["student"] - drawn["baseline"])[there] / gaps[there]
    return Interval((scores["student"] - scores["baseline"]) / gap, *bounds(shares))


def _answers(logits: Mapping[str, Logits], task: Task) -> list[str]:
    """Note how often the teacher gives its commonest label, and models that answer the same whatever the text is."""
    if task.is_score:
        return []
    notes = []
    for model in ("teacher", "student"):
        found = np.concatenate([answers(of_table, task) for of_table in logits[model].values()])
        label, count = Counter(written(found, task.labels)).most_common(1)[0]
        share, label = count / len(found), label or "no label"
        if share == 1:
            hint = "there is nothing to distil" if model == "teacher" else "it has learned nothing"
            notes.append(f"the {model} answers {label} for every text: {hint}; train it longer, or on more rows")
        elif model == "teacher" and share > (1 + 1 / task.outputs) / 2:  # half-way from chance to always
            notes.append(f"the teacher answers {label} for {share:.0%} of the texts, as one that knows nothing would")
    return notes


def _beaten(results: Results) -> list[str]:
    """Note a teacher whose interval lies below the score of labels alone, and a student no nearer to it than TF-IDF."""
    rows, metric, notes = {row.model: row for row in results.rows}, results.metrics[0], []
    for table in results.gap_closed:
        if "baseline" in rows:
            teacher, labels = (fmean(rows[model].scores[table][metric]) for model in ("teacher", "baseline"))
            if rows["teacher"].intervals[table][metric][1] < labels:
                figures = f"{100 * teacher:.1f} on {table}, where labels alone give {100 * labels:.1f}"
                notes.append(f"the teacher has {figures}: train it longer, or take the baseline")
        if "tf-idf" in rows:
            student, words = (rows[model].fidelity[table].nearness for model in ("student", "tf-idf"))
            if words.value >= student.low:
                near = f"{words.value:.3f} on {table}, the student {student.value:.3f}, {student.low:.3f} at the least"
                notes.append(f"tf-idf may be as near to the teacher as the student ({near}): take it, or more texts")
    return notes


def _with_logits(tables: Mapping[str, pl.DataFrame], logits: Mapping[str, Logits], task: Task) -> pl.DataFrame:
    names = [f"{model}_{number}" for model in logits for number in range(task.outputs)]
    values = {name: np.concatenate([of_model[name] for of_model in logits.values()], axis=1) for name in tables}
    wanted = ["index", *task.columns, "label"]
    return pl.concat(
        table.select(pl.lit(name).alias("table"), *wanted).hstack(pl.DataFrame(values[name], names))
        for name, table in tables.items()
    )
