"""A model of natural language inference: a text has the label whose sentence it entails most (Yin et al. 2019).

Or any number of labels: those whose sentences it entails rather than contradicts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, field_validator

from kdcli.api import API_VERSION, DataError, ProfileError

if TYPE_CHECKING:
    from kdcli.models.classifier import Classifier

api_version = API_VERSION
_ROOM = 8  # the fewest word pieces that must be left for a text beside a label's sentence


class Options(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True):
    """The table ``[teachers.zero-shot]`` of a profile."""

    template: str = "This example is {}."
    """The sentence of a label, whose name takes the place of {}."""
    entailment: str = ""
    """The model's output that means entailment: its name or its number; by default the one that is named so."""

    multi_label: bool = False
    """Any number of labels a text: the probability of each is that of entailment against contradiction."""
    contradiction: str = ""
    """With multi_label: the output that means contradiction, as of `entailment`; of two outputs the other one."""

    @field_validator("template")
    @classmethod
    def _template(cls, value: str) -> str:
        if value.count("{}") != 1:
            raise ValueError("must have {} once, in the place of the label's name")
        return value


@dataclass
class ZeroShot:
    """An inference model with a sentence for each label."""

    labels: tuple[str, ...]
    classifier: "Classifier"
    sentences: list[str]
    entailment: int  # the output that means it
    contradiction: int | None = None  # that of a multi-label teacher
    cut: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Take over what the model says of itself."""
        self.max_length = self.classifier.max_length
        self.parameters = self.classifier.parameters
        self.parameters_without_embeddings = self.classifier.parameters_without_embeddings
        self.megabytes = self.classifier.megabytes
        self.multi_label = self.contradiction is not None

    def logits(self, columns: Sequence[Sequence[str]], batch: int) -> NDArray[np.float32]:
        """Return for each label how much a text entails its sentence; the model reads each text once a label."""
        return self._entailment(self._passes(columns, lambda pairs: self.classifier.logits(pairs, batch)))

    def represent(
        self, columns: Sequence[Sequence[str]], batch: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the logits, and the mean of the last hidden states over the text and all sentences."""
        logits, states = zip(*self._passes(columns, lambda pairs: self.classifier.represent(pairs, batch)), strict=True)
        return self._entailment(logits), np.mean(states, axis=0, dtype=np.float32)

    def _entailment(self, passes: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the logits of the labels from the model's outputs for each sentence, ``[texts, outputs]`` each."""
        found = np.stack(passes, axis=1)  # [texts, labels, outputs]
        entailed = found[:, :, self.entailment]
        return entailed if self.contradiction is None else entailed - found[:, :, self.contradiction]

    def _passes(self, columns: Sequence[Sequence[str]], read: Callable[[list[Sequence[str]]], Any]) -> list[Any]:
        """Let the model read the texts with each sentence."""
        if len(columns) > 1:
            hint = "use a teacher that was fine-tuned for pairs: --set teacher.plugin=transformers"
            raise DataError("a zero-shot teacher reads one text a row, not pairs", key="teacher.plugin", hint=hint)
        texts, found, cut = columns[0], [], 0
        for sentence in self.sentences:
            before = self.classifier.cut
            found.append(read([texts, [sentence] * len(texts)]))
            cut = max(cut, self.classifier.cut - before)
        self.cut += cut  # the longest sentence cuts each text that another one cuts
        return found

    def fingerprint(self) -> str:
        """Return a hash of the model's files and of the sentences."""
        outputs = [str(one) for one in (self.entailment, self.contradiction) if one is not None]
        known = [self.classifier.fingerprint(), *outputs, *self.sentences]
        return sha256("\n".join(known).encode()).hexdigest()


def load(model: str, options: Options, *, labels: tuple[str, ...], **how: Any) -> ZeroShot:
    """Load the model; see ``kdcli.api.TeacherPlugin``."""
    from kdcli.models.classifier import load_classifier

    if len(labels) < 2:
        raise ProfileError("a zero-shot teacher needs the names of two classes or more", hint="--labels NAME,NAME")
    classifier = load_classifier(model, **how)
    classifier.truncation = "only_first"
    sentences = [options.template.replace("{}", label) for label in labels]
    for label, pieces in zip(labels, classifier.tokenizer(sentences)["input_ids"], strict=True):
        if len(pieces) + _ROOM > classifier.max_length:
            what = f"the sentence of this label leaves no room for a text in {classifier.max_length} word pieces"
            raise DataError(what, key=label, hint="shorten the name or teachers.zero-shot.template")
    entailment, against = _output("entailment", options.entailment, classifier), None
    if options.multi_label and len(classifier.labels) == 2 and not options.contradiction:
        against = 1 - entailment
    elif options.multi_label:
        against = _output("contradiction", options.contradiction, classifier)
    if against == entailment:
        what = f"the output {classifier.labels[entailment]} means entailment, and cannot mean contradiction too"
        raise ProfileError(what, key="teachers.zero-shot.contradiction")
    return ZeroShot(labels, classifier, sentences, entailment, against)


def _output(meaning: str, wanted: str, classifier: "Classifier") -> int:
    """Return the output that means entailment, or contradiction."""
    names = [name.casefold() for name in classifier.labels]
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    found = [number for number, name in enumerate(names) if name == (wanted or meaning).casefold()]
    if not found and not wanted:
        found = [number for number, name in enumerate(names) if name.startswith(meaning[:6])]
    if len(found) != 1:
        what = f"none of the model's outputs is named {wanted or meaning}: {', '.join(classifier.labels)}"
        hint = f"its card says which one means it: --set teachers.zero-shot.{meaning}=NUMBER, counted from 0"
        raise DataError(what, file=classifier.folder, key=f"teachers.zero-shot.{meaning}", hint=hint)
    return found[0]
