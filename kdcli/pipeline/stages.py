"""The stages of a run: what each is made from, what it makes, and the call that makes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcli import registry
from kdcli.api import Reporter
from kdcli.errors import ProfileError
from kdcli.pipeline.ground import Ground, Stage, if_local, trains_together
from kdcli.pipeline.lock import flat
from kdcli.pipeline.run_dir import of_seed
from kdcli.pipeline.transfer_stages import TRANSFER, TransferStages

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
        return [
            *TransferStages(self.ground).stages(),
            *([self.train_teacher()] if self.ground.settings.teacher.train else []),
            self.export(),
            self.join(),
            self.encode(),
            *(self.student(seed) for seed in each),
            *(self.baseline(seed) for seed in each),
            self.results(each),
        ]

    def stage(self, name: str) -> Stage:
        """Return one stage by its name, that of the first seed; nothing is asked of the others."""
        transfer = TransferStages(self.ground)
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
            "encode": self.encode,
            "student": lambda: self.student(self.ground.seed),
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

    def encode(self) -> Stage:
        """Describe the joined set as word ids, with vocabulary and word vectors."""
        settings = self.ground.settings.student
        teacher = self.ground.settings.teacher
        if settings.vectors == "teacher" and not teacher.train:
            what = "vectors are to be made from the teacher before its fine-tuning, and it is fine-tuned already"
            hint = f"name the encoder that it was made from (or {teacher.model}, to take it as it is)"
            raise ProfileError(what, key="student.vectors", hint=hint)
        encoder = teacher.model if settings.vectors == "teacher" else settings.vectors
        if encoder == "config":
            what = "vectors are to be made from the teacher's pretrained weights, and it has none"
            hint = 'name a vector file or an encoder, or leave it empty (teacher.model is "config")'
            raise ProfileError(what, key="student.vectors", hint=hint)

        def run(reporter: Reporter) -> Any:
            from kdcli.student.encoding import encode

            return encode(
                joined=self.ground.paths.joined,
                task=self.ground.task,
                settings=settings,
                seed=self.ground.seed,
                device=self.ground.device,
                encoder=encoder,
                output=self.ground.paths.encoded,
                reporter=reporter,
            )

        names = ("max_size", "min_freq", "lowercase", "max_length", "dimension")
        parameters = {f"student.{name}": getattr(settings, name) for name in names}
        parameters |= {"seed": self.ground.seed, "student.vectors": encoder, **self.ground.task_parameters()}
        inputs = {"joined": self.ground.paths.joined, **if_local("vectors", encoder)}
        return Stage("encode", "encode", parameters, inputs, {"encoded": self.ground.paths.encoded}, run)

    def student(self, seed: int) -> Stage:
        """Describe the distillation of the student."""
        output = of_seed(self.ground.paths.student, seed, self.ground.seed)

        def run(reporter: Reporter) -> Any:
            from kdcli.student.encoding import load_examples

            examples = load_examples(self.ground.paths.encoded, self.ground.task)
            return self._train(examples, self.ground.settings.student, seed, output, None, reporter)

        inputs = {"encoded": self.ground.paths.encoded, **self.ground.data("dev"), **self._student_code()}
        return Stage(
            "student",
            output.name,
            self._student_parameters(seed),
            inputs,
            {"student": output},
            run,
            seed - self.ground.seed,
        )

    def baseline(self, seed: int) -> Stage:
        """Describe the same student trained on the gold labels alone, with at most as many updates."""
        output = of_seed(self.ground.paths.baseline, seed, self.ground.seed)
        distilled = of_seed(self.ground.paths.student, seed, self.ground.seed)

        def run(reporter: Reporter) -> Any:
            from kdcli.student.encoding import encode_table
            from kdcli.student.folder import load_student

            student = load_student(distilled, "cpu")
            train = self.ground.split("train", reporter)
            examples = encode_table(train, student.tokenizer, self.ground.task, self.ground.settings.student.max_length)
            updates = student.metrics["updates"]
            # Its epochs are shorter, so that it gets as many updates, and looks at dev at the end of each.
            epochs = max(1, math.ceil(updates * self.ground.settings.student.batch_size / len(examples)))
            labels_only = {"kd_weight": 0.0, "ce_weight": 1.0, "epochs": epochs, "eval_steps": 0}
            settings = self.ground.settings.student.model_copy(update=labels_only)
            return self._train(examples, settings, seed, output, updates, reporter)

        inputs = {"encoded": self.ground.paths.encoded, "student": distilled, **self.ground.data("train", "dev")}
        inputs |= self._student_code()
        without = {key: value for key, value in self._student_parameters(seed).items() if key not in _DISTILLATION}
        return Stage("baseline", output.name, without, inputs, {"baseline": output}, run, seed - self.ground.seed)

    def results(self, seeds: list[int]) -> Stage:
        """Describe the comparison of teacher, baseline and student."""
        students = [of_seed(self.ground.paths.student, seed, self.ground.seed) for seed in seeds]
        baselines = [of_seed(self.ground.paths.baseline, seed, self.ground.seed) for seed in seeds]

        def run(reporter: Reporter) -> Any:
            from kdcli.pipeline.results import compare

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

    def _train(
        self, examples: Any, settings: Any, seed: int, output: Path, max_updates: int | None, reporter: Reporter
    ) -> Any:
        from kdcli.student.encoding import encode_table, load_tokenizer, load_vectors
        from kdcli.student.train import train_student

        tokenizer = load_tokenizer(self.ground.paths.encoded)
        return train_student(
            examples=examples,
            dev=encode_table(self.ground.split("dev", reporter), tokenizer, self.ground.task, settings.max_length),
            tokenizer=tokenizer,
            vectors=load_vectors(self.ground.paths.encoded),
            task=self.ground.task,
            settings=settings,
            options=self._student_table,
            seed=seed,
            device=self.ground.device,
            output=output,
            max_updates=max_updates,
            resume=self.ground.resume,
            name=output.name,
            reporter=reporter,
        )

    def _teacher_input(self) -> dict[str, Path]:
        return (
            {"teacher": self.ground.paths.teacher}
            if self.ground.settings.teacher.train
            else if_local("teacher", str(self.teacher))
        )

    @property
    def _student_table(self) -> dict[str, Any]:
        """The table of the student's plugin, which has its name without its distribution."""
        settings = self.ground.settings
        return settings.students.get(settings.student.model.rpartition(":")[2], {})

    def _student_code(self) -> dict[str, Path]:
        return registry.code_of("students", self.ground.settings.student.model)

    def _student_parameters(self, seed: int) -> dict[str, Any]:
        settings = self.ground.settings.student
        options = registry.options("students", settings.model, self._student_table)
        return {
            "seed": seed,
            **flat("student", settings, without=("max_size", "min_freq", "lowercase", "vectors")),
            **flat(f"students.{settings.model.rpartition(':')[2]}", options),
            "task.metric": self.ground.settings.task.metric,
        }


_DISTILLATION = ("student.kd_loss", "student.kd_weight", "student.ce_weight", "student.temperature")
