"""The stages that train the student: on the teacher's logits, and the same one on the labels alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcli import registry
from kdcli.api import Reporter
from kdcli.errors import ProfileError
from kdcli.run.context import Ground, Stage, if_local
from kdcli.run.lock import flat
from kdcli.run.run_dir import of_seed

_DISTILLATION = ("student.kd_loss", "student.kd_weight", "student.ce_weight", "student.temperature")


@dataclass(frozen=True)
class StudentStages:
    """The training of the student; each method describes one stage."""

    ground: Ground

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

            student, given = load_student(distilled, "cpu"), self.ground.settings.student
            train = self.ground.split("train", reporter)
            examples = encode_table(train, student.tokenizer, self.ground.task, given.max_length)
            updates = student.metrics["updates"]
            # Its epochs are shorter, and it looks at dev at the end of each: it gets as many updates as the student,
            # and as many without a better score.
            epoch, waited = (math.ceil(rows / given.batch_size) for rows in (len(examples), student.config["rows"]))
            labels_only = {
                "kd_weight": 0.0,
                "ce_weight": 1.0,
                "epochs": math.ceil(updates / epoch),
                "eval_steps": 0,
                "patience": math.ceil(given.patience * (given.eval_steps or waited) / epoch),
            }
            settings = given.model_copy(update=labels_only)
            return self._train(examples, settings, seed, output, updates, reporter)

        inputs = {"encoded": self.ground.paths.encoded, "student": distilled, **self.ground.data("train", "dev")}
        inputs |= self._student_code()
        without = {key: value for key, value in self._student_parameters(seed).items() if key not in _DISTILLATION}
        return Stage("baseline", output.name, without, inputs, {"baseline": output}, run, seed - self.ground.seed)

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

    @property
    def _student_table(self) -> dict[str, Any]:
        """The table of the student's plugin, which has its name without its distribution."""
        settings = self.ground.settings
        return settings.students.get(registry.table_name(settings.student.model), {})

    def _student_code(self) -> dict[str, Path]:
        return registry.code_of("students", self.ground.settings.student.model)

    def _student_parameters(self, seed: int) -> dict[str, Any]:
        settings = self.ground.settings.student
        options = registry.options("students", settings.model, self._student_table)
        return {
            "seed": seed,
            **flat("student", settings, without=("max_size", "min_freq", "lowercase", "vectors")),
            **flat(f"students.{registry.table_name(settings.model)}", options),
            "task.metric": self.ground.settings.task.metric,
        }
