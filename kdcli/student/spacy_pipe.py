"""The student in a spaCy pipeline: ``nlp.add_pipe("kd_student", config={"model": FOLDER})`` fills in ``doc.cats``."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

from spacy.language import Language
from spacy.tokens import Doc

from kdcli.api import DataError
from kdcli.student.student import Student, load_student


@Language.factory("kd_student", assigns=["doc.cats"], default_config={"model": ""})
class StudentPipe:
    """A component that sets ``doc.cats``: the probability of each label, or the score under the task's name.

    ``model`` is the student's folder, or its name on the Hub; of a pipeline from disk it is the folder in there.
    """

    def __init__(self, nlp: Language, name: str, model: str) -> None:
        self.model = model

    @cached_property
    def student(self) -> Student:
        """The student, loaded at its first use."""
        student = load_student(self.model)
        if student.task.kind == "pair":
            raise DataError("a document is one text, and this student reads pairs", file=self.model)
        return student

    def __call__(self, doc: Doc) -> Doc:
        """Set the ``cats`` of a document."""
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], batch_size: int = 256) -> Iterator[Doc]:
        """Set the ``cats`` of documents, so many at once."""
        waiting = iter(stream)
        for docs in iter(lambda: list(islice(waiting, batch_size)), []):
            task, found = self.student.task, self.student.predict([doc.text for doc in docs])
            for doc, one in zip(docs, found, strict=True):
                doc.cats |= {task.name: one.score} if task.is_score else one.probabilities
                yield doc

    def to_disk(self, path: str | Path, **_: Any) -> None:
        """Write the student's folder into the pipeline's."""
        replace(self.student).save(path)

    def from_disk(self, path: str | Path, **_: Any) -> Self:
        """Take the student of the pipeline's folder."""
        self.model = str(path)
        return self
