"""The student in a spaCy pipeline: ``nlp.add_pipe("kd_student", config={"model": FOLDER})`` fills in ``doc.cats``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import minibatch

from kdcli.api import DataError
from kdcli.student.student import Student, load_student


class StudentPipe:
    """A component that sets ``doc.cats``: the probability of each label, or the score under the task's name."""

    def __init__(self, model: str) -> None:
        self.model = model

    @cached_property
    def student(self) -> Student:
        """The student, loaded at its first use: of a pipeline from disk it is the one beside it."""
        student = load_student(self.model)
        if student.task.kind == "pair":
            raise DataError("a document is one text, and this student reads pairs", file=self.model)
        return student

    def __call__(self, doc: Doc) -> Doc:
        """Set the ``cats`` of a document."""
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], batch_size: int = 256) -> Iterator[Doc]:
        """Set the ``cats`` of documents, so many at once."""
        for docs in minibatch(stream, batch_size):
            task, found = self.student.task, self.student.predict([doc.text for doc in docs])
            for doc, one in zip(docs, found, strict=True):
                doc.cats |= {task.name: one.score} if task.is_score else one.probabilities
                yield doc

    def to_disk(self, path: str | Path, exclude: Iterable[str] = ()) -> None:
        """Write the student's folder into the pipeline's."""
        replace(self.student).save(path)

    def from_disk(self, path: str | Path, exclude: Iterable[str] = ()) -> StudentPipe:
        """Take the student of the pipeline's folder."""
        self.model = str(path)
        self.__dict__.pop("student", None)
        return self


@Language.factory("kd_student", assigns=["doc.cats"], default_config={"model": ""})
def make(nlp: Language, name: str, model: str) -> StudentPipe:
    """Make the component; ``model`` is the folder of a student, or its name on the Hugging Face Hub."""
    return StudentPipe(model)
