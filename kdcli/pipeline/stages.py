"""The stages of a run: what each is made from, what it makes, and the call that makes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcli import registry
from kdcli.api import Reporter, Task
from kdcli.data.parts import ALONE, Shard
from kdcli.errors import ProfileError
from kdcli.pipeline.lock import flat
from kdcli.pipeline.run_dir import Paths, of_seed
from kdcli.profile.schema import Settings
from kdcli.tasks.layouts import has_split, load_split, split_files
from kdcli.tasks.task import task_from

NAMES = ("transfer", "teacher", "export", "join", "encode", "student", "baseline", "results")


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: The kind of step, one of ``NAMES``: what ``--from``, ``--until`` and ``--only`` mean.
        key: Its entry in ``kd.lock``; differs from the name for students of further seeds.
        parameters: The settings that it depends on, by dotted key.
        inputs: The files and folders that it reads, by name.
        outputs: The files and folders that it writes, by name.
        run: Makes the outputs; returns a dataclass, or None where other shards are still at work.
        number: Its place among the seeds; shards share them.
    """

    name: str
    key: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Path]
    outputs: Mapping[str, Path]
    run: Callable[[Reporter], Any]
    number: int = 0


@dataclass(frozen=True)
class Plan:
    """A profile laid out over a set of paths; each method describes one stage."""

    settings: Settings
    paths: Paths
    device: str
    shard: Shard = ALONE
    resume: bool = True

    @property
    def task(self) -> Task:
        """The task of the profile."""
        return task_from(self.settings.task)

    @property
    def seed(self) -> int:
        """The first seed."""
        return self.settings.seed

    @property
    def teacher(self) -> str | Path:
        """The teacher to ask for logits: the fine-tuned one, or the one that the profile takes as it is."""
        return self.paths.teacher if self.settings.teacher.train else self.settings.teacher.model

    def stages(self, seeds: int = 1) -> list[Stage]:
        """Return all stages in order, the student and its baseline once for each seed."""
        each = [self.seed + number for number in range(seeds)]
        return [
            self.transfer(),
            *([self.train_teacher()] if self.settings.teacher.train else []),
            self.export(),
            self.join(),
            self.encode(),
            *(self.student(seed) for seed in each),
            *(self.baseline(seed) for seed in each),
            self.results(each),
        ]

    def stage(self, name: str) -> Stage:
        """Return one stage by its name, that of the first seed; nothing is asked of the others."""
        makers: dict[str, Callable[[], Stage]] = {
            "transfer": self.transfer,
            "teacher": self.train_teacher,
            "export": self.export,
            "join": self.join,
            "encode": self.encode,
            "student": lambda: self.student(self.seed),
        }
        return makers[name]()

    def share(self, seeds: int = 1) -> list[Stage]:
        """Return this shard's stages: all shards make parts of the transfer set and of the logits, and share the seeds.

        Whatever else there is, the first shard does.
        """
        shard = self.shard
        everyone = ("transfer", "export")
        return [
            stage for stage in self.stages(seeds) if stage.name in everyone or stage.number % shard.count == shard.index
        ]

    def transfer(self) -> Stage:
        """Describe the making of the transfer set."""
        settings = self.settings

        def run(reporter: Reporter) -> Any:
            from kdcli.transfer.lite import fabricate

            held_out = [self._split(split, reporter) for split in ("dev", "test") if has_split(settings.task, split)]
            return fabricate(
                train=self._split("train", reporter),
                held_out=held_out,
                task=self.task,
                settings=settings.transfer.lite,
                seed=self.seed,
                output=self.paths.transfer,
                shard=self.shard,
                reporter=reporter,
            )

        parameters = {**self._task_parameters(), **flat("transfer", settings.transfer, without=("workers",))}
        outputs = {"transfer": self.paths.transfer}
        return Stage("transfer", "transfer", {"seed": self.seed, **parameters}, self._data(), outputs, run)

    def train_teacher(self) -> Stage:
        """Describe the fine-tuning of the teacher."""
        settings = self.settings

        def run(reporter: Reporter) -> Any:
            from kdcli.teacher.train import train_teacher

            return train_teacher(
                train=self._split("train", reporter),
                dev=self._split("dev", reporter),
                task=self.task,
                settings=settings.teacher,
                seed=self.seed,
                device=self.device,
                precision=settings.precision,
                output=self.paths.teacher,
                resume=self.resume,
                reporter=reporter,
            )

        parameters = {
            "seed": self.seed,
            "precision": settings.precision,
            **self._task_parameters(),
            "task.metric": settings.task.metric,
            **flat("teacher", settings.teacher, without=("export", "train", "save_steps")),
        }
        inputs = {**self._data("train", "dev"), **_if_local("model", settings.teacher.model)}
        return Stage("teacher", "teacher", parameters, inputs, {"teacher": self.paths.teacher}, run)

    def export(self) -> Stage:
        """Describe the export of the teacher's logits."""
        settings = self.settings

        def run(reporter: Reporter) -> Any:
            from kdcli.teacher.export import export_logits

            return export_logits(
                transfer=self.paths.transfer,
                teacher=self.teacher,
                task=self.task,
                settings=settings.teacher,
                device=self.device,
                precision=settings.precision,
                output=self.paths.logits,
                shard=self.shard,
                reporter=reporter,
            )

        parameters = {
            "precision": settings.teacher.export.precision or settings.precision,
            "teacher.max_length": settings.teacher.max_length,
            **self._task_parameters(),
            **({} if settings.teacher.train else {"teacher.model": settings.teacher.model}),
        }
        inputs = {"transfer": self.paths.transfer, **self._teacher_input()}
        return Stage("export", "export", parameters, inputs, {"logits": self.paths.logits}, run)

    def join(self) -> Stage:
        """Describe the join of the logits to the transfer set."""

        def run(reporter: Reporter) -> Any:
            from kdcli.teacher.join import join

            return join(
                transfer=self.paths.transfer,
                logits=self.paths.logits,
                task=self.task,
                label=self.settings.join.label,
                output=self.paths.joined,
                reporter=reporter,
            )

        parameters = {**self._task_parameters(), **flat("join", self.settings.join)}
        inputs = {"transfer": self.paths.transfer, "logits": self.paths.logits}
        return Stage("join", "join", parameters, inputs, {"joined": self.paths.joined}, run)

    def encode(self) -> Stage:
        """Describe the joined set as word ids, with vocabulary and word vectors."""
        settings = self.settings.student
        teacher = self.settings.teacher
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
                joined=self.paths.joined,
                task=self.task,
                settings=settings,
                seed=self.seed,
                device=self.device,
                encoder=encoder,
                output=self.paths.encoded,
                reporter=reporter,
            )

        names = ("max_size", "min_freq", "lowercase", "max_length", "dimension")
        parameters = {f"student.{name}": getattr(settings, name) for name in names}
        parameters |= {"seed": self.seed, "student.vectors": encoder, **self._task_parameters()}
        inputs = {"joined": self.paths.joined, **_if_local("vectors", encoder)}
        return Stage("encode", "encode", parameters, inputs, {"encoded": self.paths.encoded}, run)

    def student(self, seed: int) -> Stage:
        """Describe the distillation of the student."""
        output = of_seed(self.paths.student, seed, self.seed)

        def run(reporter: Reporter) -> Any:
            from kdcli.student.encoding import load_examples

            examples = load_examples(self.paths.encoded, self.task)
            return self._train(examples, self.settings.student, seed, output, None, reporter)

        inputs = {"encoded": self.paths.encoded, **self._data("dev")}
        return Stage(
            "student", output.name, self._student_parameters(seed), inputs, {"student": output}, run, seed - self.seed
        )

    def baseline(self, seed: int) -> Stage:
        """Describe the same student trained on the gold labels alone, with at most as many updates."""
        output = of_seed(self.paths.baseline, seed, self.seed)
        distilled = of_seed(self.paths.student, seed, self.seed)

        def run(reporter: Reporter) -> Any:
            from kdcli.student.encoding import encode_table
            from kdcli.student.folder import load_student

            student = load_student(distilled, "cpu")
            train = self._split("train", reporter)
            examples = encode_table(train, student.tokenizer, self.task, self.settings.student.max_length)
            updates = student.metrics["updates"]
            # Its epochs are shorter, so that it gets as many updates, and looks at dev at the end of each.
            epochs = max(1, math.ceil(updates * self.settings.student.batch_size / len(examples)))
            labels_only = {"kd_weight": 0.0, "ce_weight": 1.0, "epochs": epochs, "eval_steps": 0}
            settings = self.settings.student.model_copy(update=labels_only)
            return self._train(examples, settings, seed, output, updates, reporter)

        inputs = {"encoded": self.paths.encoded, "student": distilled, **self._data("train", "dev")}
        without = {key: value for key, value in self._student_parameters(seed).items() if key not in _DISTILLATION}
        return Stage("baseline", output.name, without, inputs, {"baseline": output}, run, seed - self.seed)

    def results(self, seeds: list[int]) -> Stage:
        """Describe the comparison of teacher, baseline and student."""
        students = [of_seed(self.paths.student, seed, self.seed) for seed in seeds]
        baselines = [of_seed(self.paths.baseline, seed, self.seed) for seed in seeds]

        def run(reporter: Reporter) -> Any:
            from kdcli.pipeline.results import compare

            splits = {
                split: self._split(split, reporter) for split in ("dev", "test") if has_split(self.settings.task, split)
            }
            return compare(
                teacher=self.teacher,
                baselines=baselines,
                students=students,
                splits=splits,
                task=self.task,
                max_length=self.settings.teacher.max_length,
                device=self.device,
                precision=self.settings.precision,
                output=self.paths.results,
                reporter=reporter,
            )

        inputs = {path.name: path for path in (*students, *baselines)}
        inputs |= {**self._teacher_input(), **self._data("dev", "test")}
        parameters = {"seeds": seeds, "precision": self.settings.precision}
        return Stage("results", "results", parameters, inputs, {"results": self.paths.results}, run)

    def _train(
        self, examples: Any, settings: Any, seed: int, output: Path, max_updates: int | None, reporter: Reporter
    ) -> Any:
        from kdcli.student.encoding import encode_table, load_tokenizer, load_vectors
        from kdcli.student.train import train_student

        tokenizer = load_tokenizer(self.paths.encoded)
        return train_student(
            examples=examples,
            dev=encode_table(self._split("dev", reporter), tokenizer, self.task, settings.max_length),
            tokenizer=tokenizer,
            vectors=load_vectors(self.paths.encoded),
            task=self.task,
            settings=settings,
            options=self.settings.students.get(settings.model, {}),
            seed=seed,
            device=self.device,
            output=output,
            max_updates=max_updates,
            resume=self.resume,
            name=output.name,
            reporter=reporter,
        )

    def _split(self, split: Any, reporter: Reporter) -> Any:
        return load_split(self.settings.task, self.task, split, reporter)

    def _data(self, *splits: Any) -> dict[str, Path]:
        """Return the data files of the splits (of all, if none is named), by file name."""
        found = [
            path for split in splits or ("train", "dev", "test") for path in split_files(self.settings.task, split)
        ]
        return {path.name: path for path in found}

    def _task_parameters(self) -> dict[str, Any]:
        return flat("task", self.settings.task, without=("data_dir", "name", "names", "metric"))

    def _teacher_input(self) -> dict[str, Path]:
        return (
            {"teacher": self.paths.teacher} if self.settings.teacher.train else _if_local("teacher", str(self.teacher))
        )

    def _student_parameters(self, seed: int) -> dict[str, Any]:
        settings = self.settings.student
        options = registry.options("students", settings.model, self.settings.students.get(settings.model, {}))
        return {
            "seed": seed,
            **flat("student", settings, without=("max_size", "min_freq", "lowercase", "vectors")),
            **flat(f"students.{settings.model}", options),
            "task.metric": self.settings.task.metric,
        }


_DISTILLATION = ("student.kd_loss", "student.kd_weight", "student.ce_weight", "student.temperature")


def _if_local(name: str, model: str) -> dict[str, Path]:
    """Return a model or file as an input where it lies on this machine; a hub name is no file."""
    return {name: Path(model)} if model and Path(model).exists() else {}
