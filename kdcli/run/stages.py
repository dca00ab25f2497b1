"""The stages of a run: what each is made from, what it makes, and the call that makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcli.api import Reporter
from kdcli.run.context import Ground, Stage, if_local, trains_together
from kdcli.run.lock import flat
from kdcli.run.run_dir import of_seed
from kdcli.run.student_stages import StudentStages
from kdcli.run.transfer_stages import TRANSFER, TransferStages

NAMES = (*TRANSFER, "teacher", "export", "join", "encode", "student", "baseline", "results")
"""The kinds of stages, in order."""


@dataclass(frozen=True)
class Plan:
    """A profile laid out over a set of paths; each method describes one stage."""

    ground: Ground

    @property
    def teacher(self) -> str | Path:
        """The teacher to ask for logits: the fine-tuned one, or the one that the profile takes as it is."""
        return self.ground.paths.teacher if self.ground.settings.teacher.train else self.ground.settings.teacher.model

    def stages(self, seeds: int = 1) -> list[Stage]:
        """Return all stages in order, the student and its baseline once for each seed."""
        each = [self.ground.seed + number for number in range(seeds)]
        training = StudentStages(self.ground)
        return [
            *TransferStages(self.ground).stages(),
            *([self.train_teacher()] if self.ground.settings.teacher.train else []),
            self.export(),
            self.join(),
            training.encode(),
            *(training.student(seed) for seed in each),
            *(training.baseline(seed) for seed in each),
            self.results(each),
        ]

    def stage(self, name: str) -> Stage:
        """Return one stage by its name, that of the first seed; nothing is asked of the others."""
        transfer, training = TransferStages(self.ground), StudentStages(self.ground)
        makers: dict[str, Callable[[], Stage]] = {
            "lite": transfer.lite,
            "cache": transfer.cache,
            "fine-tune": transfer.fine_tune,
            "prefixes": transfer.prefixes,
            "sample": transfer.sample,
            "corpus": transfer.corpus,
            "mix": transfer.mix,
            "teacher": self.train_teacher,
            "export": self.export,
            "join": self.join,
            "encode": training.encode,
            "student": lambda: training.student(self.ground.seed),
        }
        return makers[name]()

    def share(self, seeds: int = 1) -> list[Stage]:
        """Return this shard's stages: all make parts of the transfer set and of the logits, and they share the seeds.

        Whatever else there is, the first shard does; but whoever makes the last part of a set, goes on with it.
        """
        shard = self.ground.shard
        return [
            stage
            for stage in self.stages(seeds)
            if stage.together or stage.name == "mix" or stage.number % shard.count == shard.index
        ]

    def train_teacher(self) -> Stage:
        """Describe the fine-tuning of the teacher."""
        settings = self.ground.settings

        def run(reporter: Reporter) -> Any:
            from kdcli.teacher.train import train_teacher

            return train_teacher(
                train=self.ground.split("train", reporter),
                dev=self.ground.split("dev", reporter),
                task=self.ground.task,
                settings=settings.teacher,
                seed=self.ground.seed,
                device=self.ground.device,
                precision=settings.precision,
                output=self.ground.paths.teacher,
                resume=self.ground.resume,
                reporter=reporter,
            )

        parameters = {
            "seed": self.ground.seed,
            "precision": settings.precision,
            **self.ground.task_parameters(),
            "task.metric": settings.task.metric,
            **flat("teacher", settings.teacher, without=("export", "train", "save_steps")),
        }
        inputs = {**self.ground.data("train", "dev"), **if_local("model", settings.teacher.model)}
        outputs = {"teacher": self.ground.paths.teacher}
        return Stage("teacher", "teacher", parameters, inputs, outputs, run, together=trains_together())

    def export(self) -> Stage:
        """Describe the export of the teacher's logits."""
        settings = self.ground.settings

        def run(reporter: Reporter) -> Any:
            from kdcli.teacher.export import export_logits

            return export_logits(
                transfer=self.ground.paths.transfer,
                teacher=self.teacher,
                task=self.ground.task,
                settings=settings.teacher,
                device=self.ground.device,
                precision=settings.precision,
                output=self.ground.paths.logits,
                shard=self.ground.shard,
                resume=self.ground.resume,
                reporter=reporter,
            )

        parameters = {
            "precision": settings.teacher.export.precision or settings.precision,
            "teacher.max_length": settings.teacher.max_length,
            **self.ground.task_parameters(),
            **({} if settings.teacher.train else {"teacher.model": settings.teacher.model}),
        }
        inputs = {"transfer": self.ground.paths.transfer, **self._teacher_input()}
        outputs = {"logits": self.ground.paths.logits}
        return Stage("export", "export", parameters, inputs, outputs, run, together=True)

    def join(self) -> Stage:
        """Describe the join of the logits to the transfer set."""

        def run(reporter: Reporter) -> Any:
            from kdcli.teacher.join import join

            return join(
                transfer=self.ground.paths.transfer,
                logits=self.ground.paths.logits,
                task=self.ground.task,
                label=self.ground.settings.join.label,
                output=self.ground.paths.joined,
                reporter=reporter,
            )

        parameters = {**self.ground.task_parameters(), **flat("join", self.ground.settings.join)}
        inputs = {"transfer": self.ground.paths.transfer, "logits": self.ground.paths.logits}
        return Stage("join", "join", parameters, inputs, {"joined": self.ground.paths.joined}, run)

    def results(self, seeds: list[int]) -> Stage:
        """Describe the comparison of teacher, baseline and student."""
        students = [of_seed(self.ground.paths.student, seed, self.ground.seed) for seed in seeds]
        baselines = [of_seed(self.ground.paths.baseline, seed, self.ground.seed) for seed in seeds]

        def run(reporter: Reporter) -> Any:
            from kdcli.evaluate.results import compare

            return compare(
                teacher=self.teacher,
                baselines=baselines,
                students=students,
                tables=self.ground.tables("dev", "test", reporter=reporter),
                task=self.ground.task,
                max_length=self.ground.settings.teacher.max_length,
                device=self.ground.device,
                precision=self.ground.settings.precision,
                output=self.ground.paths.results,
                predictions=self.ground.paths.predictions,
                reporter=reporter,
            )

        inputs = {path.name: path for path in (*students, *baselines)}
        inputs |= {**self._teacher_input(), **self.ground.data("dev", "test")}
        task = self.ground.task
        parameters = {
            "seeds": seeds,
            "precision": self.ground.settings.precision,
            "task.metric": task.metric,
            "task.more_metrics": task.more_metrics,
        }
        outputs = {"results": self.ground.paths.results, "predictions": self.ground.paths.predictions}
        return Stage("results", "results", parameters, inputs, outputs, run)

    def _teacher_input(self) -> dict[str, Path]:
        return (
            {"teacher": self.ground.paths.teacher}
            if self.ground.settings.teacher.train
            else if_local("teacher", str(self.teacher))
        )
