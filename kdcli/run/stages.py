"""All stages of a run, in order: those of the transfer set, then the teacher, its logits, the student, the results."""

from __future__ import annotations

import json
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli import registry
from kdcli.api import QuietReporter
from kdcli.run.result_stages import READING, Calibrate, CompareResults
from kdcli.run.stage import Files, RunContext, Stage, if_local
from kdcli.run.transfer_stages import TABLES, Cache, FineTune, Lite, Mix, Prefixes, Sample, TakeCorpus
from kdcli.tasks.split import split_files

if TYPE_CHECKING:
    import polars as pl

    from kdcli.api import Reporter
    from kdcli.config.schema import Settings, StudentSettings
    from kdcli.student.dataset import Examples

LABELS = ("task.kind", "task.labels", "task.names", "task.multi_label")
"""The settings that decide which logit is whose."""
VOCABULARY = ("student.max_size", "student.min_freq", "student.lowercase", "student.vectors", "student.word_pieces")
"""The settings of a student that only its vocabulary depends on."""
DISTILLATION = tuple(f"student.{name}" for name in ("kd_loss", "kd_weight", "repr_weight", "ce_weight", "temperature"))
"""The settings of a student that only its distillation depends on."""


class TrainTeacher(Stage):
    """Fine-tune the teacher on the labelled texts; without ``teacher.train`` the profile names one that is."""

    name = "teacher"
    command = "kd teacher train"
    result = "kdcli.teacher.train:TeacherResult"
    settings = (*TABLES, "task.metric", "teacher", "precision", "seed")
    without = ("teacher.plugin", "teacher.long_texts")
    reads = ("train", "dev")
    labelled = ("train", "dev")
    makes = ("teacher",)
    together = True

    def applies(self, settings: Settings) -> bool:
        return settings.teacher.train

    def inputs(self, run: RunContext) -> Files:
        """Add the pretrained model."""
        return super().inputs(run) | if_local("model", run.settings.teacher.model)

    def run(self, run: RunContext) -> Any:
        from kdcli.teacher.train import train_teacher

        shared = run.common("teacher", "seed", "device", "precision", "resume")
        return train_teacher(train=run.read("train"), dev=run.read("dev"), settings=run.settings.teacher, **shared)


class Export(Stage):
    """Export the teacher's logits of the transfer set."""

    name = "export"
    command = "kd teacher export"
    result = "kdcli.teacher.export:ExportResult"
    settings = (*LABELS, *READING)
    plugin = "teachers"
    reads = ("transfer", "teacher")
    makes = ("logits",)
    together = True

    def parameters(self, run: RunContext) -> dict[str, Any]:
        """Add the precision of this stage, and the teacher that the profile takes as it is."""
        teacher = run.settings.teacher
        named = {} if teacher.train else {"teacher.model": teacher.model}
        represent = {"represent": True} if run.settings.student.repr_weight else {}
        precision = teacher.export.precision or run.settings.precision
        return super().parameters(run) | {"precision": precision, **named, **represent}

    def run(self, run: RunContext) -> Any:
        known = None if run.elsewhere else run.path("known")
        represent = bool(run.settings.student.repr_weight)
        return _export(run, run.path("transfer"), "logits", represent=represent, known=known)

    def estimate(self, run: RunContext) -> dict[str, float] | None:
        return _estimate(run, run.path("transfer"))


class ExportDev(Stage):
    """Export the teacher's logits of the dev texts, where there are no gold labels to choose a student by."""

    name = "export-dev"
    command = "kd run-all --only export-dev"
    result = "kdcli.teacher.export:ExportResult"
    settings = (*TABLES, *READING)
    plugin = "teachers"
    reads = ("dev", "teacher")
    makes = ("dev_logits",)
    together = True

    def applies(self, settings: Settings) -> bool:
        return not settings.task.gold

    def parameters(self, run: RunContext) -> dict[str, Any]:
        """Add those of the export."""
        return super().parameters(run) | Export().parameters(run)

    def run(self, run: RunContext) -> Any:
        (table,) = split_files(run.settings.task, "dev")
        return _export(run, table, "dev_logits")

    def estimate(self, run: RunContext) -> dict[str, float] | None:
        (table,) = split_files(run.settings.task, "dev")
        return _estimate(run, table)


class Join(Stage):
    """Join the logits to the transfer set."""

    name = "join"
    command = "kd join"
    result = "kdcli.teacher.join:JoinResult"
    settings = (*LABELS, "join")
    reads = ("transfer", "logits")
    makes = ("joined",)

    def run(self, run: RunContext) -> Any:
        from kdcli.teacher.join import join

        transfer, logits = run.path("transfer"), run.path("logits")
        return join(transfer=transfer, logits=logits, **run.settings.join.model_dump(), **run.common("joined"))


class Encode(Stage):
    """Turn the joined set into word ids, with vocabulary and word vectors."""

    name = "encode"
    command = "kd student"
    result = "kdcli.student.dataset:EncodeResult"
    settings = (
        *("task.kind", "task.labels", "task.multi_label"),
        *(*VOCABULARY, "student.max_length", "student.dimension", "seed"),
    )
    reads = ("joined",)
    makes = ("encoded",)

    def inputs(self, run: RunContext) -> Files:
        """Add the file or model of the word vectors."""
        return super().inputs(run) | if_local("vectors", run.settings.vectors_source)

    def parameters(self, run: RunContext) -> dict[str, Any]:
        """Name the model that ``student.vectors = "teacher"`` stands for."""
        return super().parameters(run) | {"student.vectors": run.settings.vectors_source}

    def run(self, run: RunContext) -> Any:
        from kdcli.student.dataset import encode

        return encode(
            joined=run.path("joined"),
            settings=run.settings.student,
            encoder=run.settings.vectors_source,
            **run.common("encoded", "seed", "device"),
        )


class TrainStudent(Stage):
    """Distil the teacher into a student."""

    name = "student"
    command = "kd student"
    result = "kdcli.student.train:StudentResult"
    settings = (*TABLES, "task.metric", "student", "seed")
    without = VOCABULARY
    plugin = "students"
    reads = ("encoded", "dev")
    labelled = ("dev",)
    makes = ("student",)
    per_seed = True

    def inputs(self, run: RunContext) -> Files:
        """Add the teacher's answers on dev, where they stand for gold labels."""
        return super().inputs(run) | ({} if run.settings.task.gold else run.files("dev_logits"))

    def run(self, run: RunContext) -> Any:
        from kdcli.student.dataset import load_examples

        examples = load_examples(run.path("encoded"), run.task)
        return _train(run, self.name, examples, run.settings.student)


class TrainBaseline(Stage):
    """Train the same student on the gold labels alone.

    Its epochs are shorter than the student's, and it is evaluated at the end of each: it gets at most as many updates
    in all, and as many without a better score.
    """

    name = "baseline"
    command = "kd run-all --only baseline"
    result = "kdcli.student.train:StudentResult"
    settings = (*TABLES, "task.metric", "student", "seed")
    without = (*VOCABULARY, *DISTILLATION)
    plugin = "students"
    reads = ("encoded", "student", "train", "dev")
    labelled = ("train", "dev")
    makes = ("baseline",)
    per_seed = True

    def applies(self, settings: Settings) -> bool:
        return settings.task.gold

    def run(self, run: RunContext) -> Any:
        from kdcli.student.dataset import encode_table
        from kdcli.student.student import load_student

        student, settings = load_student(run.path("student")), run.settings.student
        examples = encode_table(run.read("train"), student.tokenizer, run.task, settings.max_length)
        updates = student.metrics["updates"]
        epoch, students_epoch = (ceil(rows / settings.batch_size) for rows in (len(examples), student.config["rows"]))
        labels_only = {
            "kd_weight": 0.0,
            "repr_weight": 0.0,
            "ce_weight": 1.0,
            "epochs": ceil(updates / epoch),
            "eval_steps": 0,
            "patience": ceil(settings.patience * (settings.eval_steps or students_epoch) / epoch),
        }
        return _train(run, self.name, examples, settings.model_copy(update=labels_only), updates)


_TRANSFER: tuple[type[Stage], ...] = (Lite, Cache, FineTune, Prefixes, Sample, TakeCorpus, Mix)
_TEACHER: tuple[type[Stage], ...] = (TrainTeacher, Export, ExportDev, Join)
_STUDENT: tuple[type[Stage], ...] = (Encode, TrainStudent, TrainBaseline, CompareResults, Calibrate)
STAGES: dict[str, type[Stage]] = {stage.name: stage for stage in (*_TRANSFER, *_TEACHER, *_STUDENT)}
"""All stages by name, in order."""
TRANSFER = tuple(stage.name for stage in _TRANSFER)
"""The stages that make the transfer set; together they are called ``transfer``."""


def warn_of_dimension(settings: Settings, reporter: Reporter) -> None:
    """Warn, before any work, of word vectors that are to be larger than the states of the encoder on this machine."""
    student, config = settings.student, Path(settings.vectors_source).expanduser() / "config.json"
    with suppress(OSError, ValueError, AttributeError):  # no folder, or one that is refused when it is loaded
        states = json.loads(config.read_text("utf-8")).get("hidden_size")
        if isinstance(states, int) and states < student.dimension:
            what = f"student.dimension is {student.dimension}, and the states of {config.parent} have {states} values"
            reporter.warn(f"{what}: the vectors will have {states}")


def _export(run: RunContext, table: Path, output: str, *, represent: bool = False, known: Path | None = None) -> Any:
    """Export the teacher's logits of a table of texts."""
    from kdcli.teacher.export import export_logits

    return export_logits(
        transfer=table,
        teacher=run.teacher,
        settings=run.settings.teacher.export,
        represent=represent,
        known=known,
        **run.common(output, "device", "precision", "resume"),
    )


def _estimate(run: RunContext, table: Path) -> dict[str, float] | None:
    """Return what the distinct texts of a table will take, of a teacher that answers over the network."""
    from kdcli.tasks.text_set import open_texts

    if not run.teacher.is_remote or not table.exists():
        return None
    texts = open_texts(table, run.task, QuietReporter()).frame.select(run.task.columns).unique()
    return run.teacher.estimate(run.task, texts.collect())


def _dev(run: RunContext) -> pl.DataFrame:
    """Return the dev table; the teacher's answers are its labels where there are no gold ones."""
    table = run.read("dev")
    if run.settings.task.gold:
        return table
    from kdcli.teacher.logits import read_logits, with_answers

    return with_answers(read_logits(run.path("dev_logits"), run.task), table, run.task)


def _train(
    run: RunContext, name: str, examples: Examples, settings: StudentSettings, max_updates: int | None = None
) -> Any:
    """Train a student, or a baseline; the model that is best on dev is kept."""
    from kdcli.student.dataset import encode_table
    from kdcli.student.train import train_student
    from kdcli.student.vectors import load_vectors
    from kdcli.student.vocabulary import load_tokenizer

    encoded = run.path("encoded")
    tokenizer = load_tokenizer(encoded)
    return train_student(
        examples=examples,
        dev=encode_table(_dev(run), tokenizer, run.task, settings.max_length),
        tokenizer=tokenizer,
        vectors=load_vectors(encoded),
        settings=settings,
        options=run.settings.students.get(registry.table_name(settings.model), {}),
        max_updates=max_updates,
        gold=run.settings.task.gold,
        name=run.path(name).name,
        **run.common(name, "seed", "device", "resume"),
    )
