"""All stages of a run, in order; here those of the student and of what is measured."""

from math import ceil
from typing import Any

import polars as pl

from kdcli.config.schema import Settings, StudentSettings
from kdcli.files import CALIBRATION
from kdcli.run import Lock, data_stages
from kdcli.run.data_stages import READING, TABLES
from kdcli.run.stage import Files, RunContext, Stage, if_local
from kdcli.student.dataset import Examples, encode, encode_table, load_examples
from kdcli.student.vectors import load_vectors
from kdcli.student.vocabulary import load_tokenizer
from kdcli.tasks.split import split_files

VOCABULARY = ("student.max_size", "student.min_freq", "student.lowercase", "student.vectors", "student.word_pieces")
"""The settings of a student that only its vocabulary depends on."""
DISTILLATION = tuple(f"student.{name}" for name in ("kd_loss", "kd_weight", "repr_weight", "ce_weight", "temperature"))
"""The settings of a student that only its distillation depends on."""


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
        return _train(run, self.name, load_examples(run.path("encoded"), run.task), run.settings.student)


class TrainBaseline(Stage):
    """Train the same student on the gold labels alone.

    Its epochs are shorter than the student's, and it is evaluated at the end of each: it gets at most as many updates
    in all, and as many without a better score.
    """

    name = "baseline"
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


class CompareResults(Stage):
    """Compare teacher, baseline and student: scores, sizes and speeds."""

    name = "results"
    result = "kdcli.evaluate.results:Results"
    settings = (*TABLES, "task.metric", "task.more_metrics", *READING, "precision")
    plugin = "teachers"
    reads = ("teacher", "joined", "dev", "test")
    makes = ("results", "predictions")

    def inputs(self, run: RunContext) -> Files:
        """Add the students and baselines of all seeds."""
        models = [one.path(name) for name in self._models(run) for one in run.each_seed()]
        return {path.name: path for path in models} | super().inputs(run)

    def parameters(self, run: RunContext) -> dict[str, Any]:
        """Add the seeds."""
        return {"seeds": [one.seed for one in run.each_seed()]} | super().parameters(run)

    def run(self, run: RunContext) -> Any:
        from kdcli.evaluate.results import compare

        joined = Lock(run.root).entry("join")
        return compare(
            teacher=run.teacher,
            students={name: [one.path(name) for one in run.each_seed()] for name in self._models(run)},
            joined=run.path("joined"),
            tables=self._tables(run),
            gold=run.settings.task.gold,
            predictions=run.path("predictions"),
            unanswered=joined.result.get("unanswered", 0) if joined else 0,
            **run.common("results", "device", "precision"),
        )

    def _models(self, run: RunContext) -> list[str]:
        return ["baseline", "student"] if run.settings.task.gold else ["student"]

    def _tables(self, run: RunContext) -> dict[str, pl.DataFrame]:
        """Return the tables to compare on; without gold labels test alone if there is one, for dev has chosen."""
        gold, test = run.settings.task.gold, split_files(run.settings.task, "test")
        return run.read_tables("dev", "test") if gold else run.read_tables("test" if test else "dev")


class Calibrate(Stage):
    """Calibrate the student on the test texts: which ones it answers itself, and which it leaves to the teacher."""

    name = "calibrate"
    result = "kdcli.evaluate.pair:CalibrationResult"
    settings = (*TABLES, "deferral")
    reads = ("student", "predictions", "dev")
    per_seed = True

    def applies(self, settings: Settings) -> bool:
        agrees = bool(settings.task.labels) or settings.deferral.tolerance > 0
        return settings.deferral.calibrate and agrees and bool(split_files(settings.task, "test"))

    def outputs(self, run: RunContext) -> Files:
        """Add a file to the student's folder."""
        return {"calibration": run.path("student") / CALIBRATION}

    def run(self, run: RunContext) -> Any:
        from kdcli.evaluate.pair import calibrate_student

        return calibrate_student(
            student=run.path("student"),
            predictions=run.path("predictions"),
            dev=run.read("dev"),
            gold=run.settings.task.gold,
            settings=run.settings.deferral,
            task=run.task,
            reporter=run.reporter,
        )


_TRANSFER: tuple[type[Stage], ...] = (
    *(data_stages.Lite, data_stages.Cache, data_stages.FineTune, data_stages.Prefixes, data_stages.Sample),
    *(data_stages.TakeCorpus, data_stages.Mix),
)
_OTHERS: tuple[type[Stage], ...] = (
    *(data_stages.TrainTeacher, data_stages.Export, data_stages.ExportDev, data_stages.Join),
    *(Encode, TrainStudent, TrainBaseline, CompareResults, Calibrate),
)
STAGES: dict[str, type[Stage]] = {stage.name: stage for stage in (*_TRANSFER, *_OTHERS)}  # all stages by name, in order
TRANSFER = tuple(stage.name for stage in _TRANSFER)
"""The stages that make the transfer set; together they are called ``transfer``."""


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
    from kdcli.student.train import train_student

    encoded = run.path("encoded")
    tokenizer = load_tokenizer(encoded)
    return train_student(
        examples=examples,
        dev=encode_table(_dev(run), tokenizer, run.task, settings.max_length),
        tokenizer=tokenizer,
        vectors=load_vectors(encoded),
        settings=settings,
        options=run.settings.students.get(settings.model, {}),
        max_updates=max_updates,
        gold=run.settings.task.gold,
        name=run.path(name).name,
        **run.common(name, "seed", "device", "resume"),
    )
