"""The stages that measure what was trained: the results, and how the student is calibrated by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdcli.files import CALIBRATION
from kdcli.run.lock import Lock
from kdcli.run.stage import Files, RunContext, Stage
from kdcli.run.transfer_stages import TABLES
from kdcli.tasks.split import has_split

if TYPE_CHECKING:
    import polars as pl

    from kdcli.config.schema import Settings

READING = ("teacher.plugin", "teacher.max_length", "teacher.long_texts")
"""The settings that decide how a teacher reads."""


class CompareResults(Stage):
    """Compare teacher, baseline and student: scores, sizes and speeds."""

    name = "results"
    command = "kd run-all --only results"
    result = "kdcli.evaluate.results:Results"
    settings = (*TABLES, "task.metric", "task.more_metrics", *READING, "precision")
    plugin = "teachers"
    reads = ("teacher", "joined", "dev", "test")
    makes = ("results", "predictions")

    def inputs(self, run: RunContext) -> Files:
        """Add the students and baselines of all seeds."""
        models = [one.path(name) for name in self._models(run) for one in run.each_seed()]
        known = run.files("dev_logits") if self._knows(run) else {}
        return {path.name: path for path in models} | super().inputs(run) | known

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
            known=run.path("dev_logits") if self._knows(run) else None,
            **run.common("results", "device", "precision"),
        )

    def _models(self, run: RunContext) -> list[str]:
        return ["baseline", "student"] if run.settings.task.gold else ["student"]

    def _knows(self, run: RunContext) -> bool:
        """Return whether the teacher has answered the texts to compare on, dev, for the choice of the student."""
        same = run.settings.teacher.export.precision in (None, run.precision)
        return same and not run.settings.task.gold and not has_split(run.settings.task, "test")

    def _tables(self, run: RunContext) -> dict[str, pl.DataFrame]:
        """Return the tables to compare on; without gold labels test alone if there is one, for dev has chosen."""
        gold, has_test = run.settings.task.gold, has_split(run.settings.task, "test")
        return run.read_tables("dev", "test") if gold else run.read_tables("test" if has_test else "dev")


class Calibrate(Stage):
    """Calibrate the student on the test texts: which ones it answers itself, and which it leaves to the teacher."""

    name = "calibrate"
    command = "kd run-all --only calibrate"
    result = "kdcli.evaluate.pair:CalibrationResult"
    settings = (*TABLES, "deferral")
    reads = ("student", "predictions", "dev")
    per_seed = True

    def applies(self, settings: Settings) -> bool:
        agrees = bool(settings.task.labels) or settings.deferral.tolerance > 0
        return settings.deferral.calibrate and agrees and has_split(settings.task, "test")

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
