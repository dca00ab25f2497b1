"""The student: one class, loaded from its folder, that predicts with NumPy alone or as its PyTorch module."""

import json
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save
from tokenizers import Tokenizer

from kdcli import registry
from kdcli.api import QuietReporter, Task
from kdcli.errors import DataError, ProfileError, UsageError, first_line
from kdcli.files import CALIBRATION, atomic
from kdcli.models.inference import narrow, read_weights
from kdcli.registry.plugin import use
from kdcli.student import vocabulary
from kdcli.student.deferral import Calibration, WordCounts, margins
from kdcli.student.explain import Explanation, explain_texts
from kdcli.student.loading import REMAKE, Config, Metrics, check_plugin, checked, fetch, numpy_form, read_json
from kdcli.tasks.answers import Predictions, at_half, predictions, probabilities

if TYPE_CHECKING:
    from torch import nn

FORMAT = "kd.student/2"
READABLE = (FORMAT, "kd.student/1")
WEIGHTS = "model.safetensors"
FEW = 64  # so many texts are encoded before Polars is even imported


@dataclass(eq=False, repr=False)
class Student:
    """A student, ready to predict; for scikit-learn a classifier, or of scores a regressor, that is fitted already.

    ``texts`` are a list, or an array, or a column of pandas or Polars; pairs are a list of pairs, or a table of two
    columns. It is pickled as the path of its folder.
    """

    part_rows: ClassVar[int] = 131_072  # of a file to predict: texts of one part share their beginnings and ends
    task: Task
    config: Mapping[str, Any]  # ``config.json``: how it was built and trained
    metrics: Mapping[str, Any]  # ``metrics.json``: the result of its training
    tokenizer: Tokenizer
    weights: Mapping[str, NDArray[Any]]  # its parameters and buffers by name
    device: str = "cpu"
    compute: vocabulary.Compute | None = None  # the model as a function of word ids; None: the PyTorch module
    batch_rows: int | None = vocabulary.ROWS  # texts that are computed at once; None for as many as memory allows
    calibration: Calibration | None = None  # which texts it answers itself; None where it was not calibrated
    folder: Path | None = None  # where it lies; None of one that was not saved

    def logits(self, columns: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return ``float32 [rows, task.outputs]`` for the text columns; ``DataError`` if a value is not finite."""
        compute = self.compute or self._module_function
        texts = [self._encode(column, self._encoder) for column in columns]
        if len(columns[0]) == 1:
            logits = compute(tuple(text.words[None] for text in texts), tuple(np.diff(text.offsets) for text in texts))
        else:
            logits = vocabulary.compute_batches(compute, texts, self.task.outputs, self.batch_rows)
        finite = np.isfinite(logits).all(axis=1)
        if not finite.all():
            text = columns[0][int(np.argmin(finite))]
            raise DataError(f"the student's logits of {text[:80]!r} are not finite", hint="train the student again")
        return logits

    def predict(self, texts: Any, *, defer: bool = False, agree: float | None = None) -> Predictions:
        """Return a prediction for each text, or pair of texts; other values are a ``DataError``.

        NumPy and scikit-learn read the list as an array: of labels, of scores, or of a multi-label task of zeros and
        ones, ``[texts, labels]``, a column for each of ``classes_``. Texts without words are a warning. With ``defer``
        each says whether it is deferred; ``agree`` is the agreement with the teacher to keep to, by default the one
        that the student was calibrated for.
        """
        columns = vocabulary.text_columns(texts, self.task)
        if empty := sum(not any(map(str.strip, row)) for row in zip(*columns, strict=True)):
            warnings.warn(f"{empty:,} of {len(texts):,} texts are empty: their prediction means nothing", stacklevel=2)
        logits = self.logits(columns)
        found = predictions(logits, self.task)
        if not defer:
            return found
        deferred = self.deferred(columns, logits, agree).tolist()
        return Predictions(replace(one, deferred=flag) for one, flag in zip(found, deferred, strict=True))

    def explain(self, texts: Any, label: str | None = None, *, pairs: bool = True) -> list[Explanation]:
        """Mask each word of each text in turn, and return what that does to the answer.

        A word is what the tokenizer reads as one, in however many pieces. The answer is ``label``, by default the most
        probable one of each text; a label that the task has not is a ``UsageError``. With ``pairs`` each two neighbours
        are masked together, too, which is twice the work.
        """
        how = self.task, self.tokenizer, self.config["max_length"], self.logits if self.compute else self._halving
        return explain_texts(vocabulary.text_columns(texts, self.task), *how, label=label, pairs=pairs)

    def word_counts(self, columns: Sequence[Sequence[str]]) -> WordCounts:
        """Count the words of texts, and those that the student does not know, the pieces inside of words among them."""
        whole = copy(self._encoder)  # which shares what is cached
        whole.max_length = sys.maxsize
        counts = [vocabulary.unknown_words(self._encode(column, whole), whole.foreign) for column in columns]
        words, unknown = np.sum(counts, axis=0)
        return WordCounts(words, unknown / words)

    @property
    def calibrated(self) -> Calibration:
        """Which texts it answers itself; a ``DataError`` of a student that was not calibrated."""
        if self.calibration is None:
            raise DataError("this student was not calibrated, and cannot say which texts to defer", hint=_UNCALIBRATED)
        return self.calibration

    def deferred(
        self, columns: Sequence[Sequence[str]], logits: NDArray[np.float32], agree: float | None = None
    ) -> NDArray[np.bool_]:
        """Return which texts the student is too unsure of, ``bool [rows]``, given its logits; see ``calibrated``."""
        margin = margins(logits, self.word_counts(columns), self.task, self.calibrated.familiar)
        return self.calibrated.defers(margin, agree)

    @property
    def classes_(self) -> NDArray[np.str_]:
        """The labels, sorted as scikit-learn sorts them, not in the order of the logits; scores have none."""
        if self.task.is_score:
            raise AttributeError("a student of scores has no classes")
        return np.sort(self.task.labels)

    def predict_proba(self, texts: Any) -> NDArray[np.float64]:
        """Return the probability of each of ``classes_``, ``float64 [texts, labels]``; a student of scores has none."""
        if self.task.is_score:
            raise UsageError("this student gives scores, not probabilities", hint="predict returns them")
        shares = probabilities(self.logits(vocabulary.text_columns(texts, self.task)), self.task)
        return shares[:, np.argsort(self.task.labels)]

    def decision_function(self, texts: Any) -> NDArray[np.floating[Any]]:
        """Return the logit of each of ``classes_``, ``float64 [texts, labels]``; a student of scores has none.

        Of two labels it is the second's less the first's, ``[texts]``, and of a multi-label task each label's less that
        of its threshold: what is positive is predicted.
        """
        if self.task.is_score:
            raise UsageError("this student gives scores, not logits of labels", hint="predict returns them")
        logits = at_half(self.logits(vocabulary.text_columns(texts, self.task)).astype(np.float64), self.task)
        logits = logits[:, np.argsort(self.task.labels)]
        return logits[:, 1] - logits[:, 0] if len(self.task.labels) == 2 and not self.task.multi_label else logits

    def fit(self, texts: Any, y: Any = None) -> Self:
        """Return the student as it is, for scikit-learn: kd trains students."""
        return self

    def score(self, texts: Any, y: Any) -> float:
        """Return the accuracy, or of scores R2, as all of scikit-learn's estimators do."""
        from sklearn.metrics import accuracy_score, r2_score

        return float((r2_score if self.task.is_score else accuracy_score)(y, self.predict(texts)))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters that scikit-learn may set: none."""
        return {}

    def __sklearn_clone__(self) -> Self:
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

        task = self.task
        inputs = InputTags(one_d_array=True, two_d_array=False, string=True)  # an item is a text, or a pair
        how = {"transformer_tags": None, "input_tags": inputs, "no_validation": True, "requires_fit": False}
        if task.is_score:
            return Tags("regressor", TargetTags(False), regressor_tags=RegressorTags(), **how)
        labels = ClassifierTags(multi_label=task.multi_label)
        return Tags("classifier", TargetTags(False), classifier_tags=labels, **how)

    def __repr__(self) -> str:
        return f"Student({self.task.name!r}, {self.config['plugin']!r}, folder={str(self.folder or '')!r})"

    def __reduce__(self) -> Any:
        if self.folder is None:
            raise UsageError("a student is pickled as its folder, and this one has none", hint="save it first")
        return partial(load_student, self.folder.resolve(), device=self.device, torch=self.compute is None), ()

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> "Student":
        """Load a student from its folder, or by its name ``USER/NAME`` from the Hub: see ``load_student``."""
        return load_student(name if Path(name).exists() else fetch(str(name), revision))

    def push_to_hub(self, name: str, *, private: bool | None = None, token: str | None = None, **card: str) -> str:
        """Upload the student as ``USER/NAME`` to the Hugging Face Hub, and return its address.

        ``card`` is what the model card says beside all that the student knows: ``licence``, ``language``, ``dataset``,
        ``teacher``, ``transfer``. A Hub that refuses, or cannot be reached, is a ``MissingError``.
        """
        import kdcli  # an export is built on students, and not the other way round

        return kdcli.push_to_hub(self, name, private=private, token=token, **card)

    def save(self, folder: str | Path) -> None:
        """Write the student's folder, whole or not at all; weights that float16 holds exactly take two bytes each."""
        from kdcli.student.card import student_card

        binary = save({name: narrow(value) for name, value in self.weights.items()})
        config = {"format": FORMAT} | {**self.config, "format": FORMAT, "task": asdict(self.task)}
        with atomic(Path(folder)) as temporary:
            temporary.mkdir()
            (temporary / WEIGHTS).write_bytes(binary)
            vocabulary.save_tokenizer(self.tokenizer, temporary)
            for name, content in (("config.json", config), ("metrics.json", self.metrics)):
                (temporary / name).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
            if self.calibration:
                self.calibration.save(temporary / CALIBRATION)
            card = student_card(config, self.metrics, self.task, len(binary))
            (temporary / "README.md").write_text(card, "utf-8")
        self.folder = Path(folder)

    @cached_property
    def module(self) -> "nn.Module":
        """The PyTorch module, in evaluation mode on the device."""
        from kdcli.student.build import load_module

        return load_module(self.config, self.task, self.weights, self.device)

    @property
    def parameters(self) -> int:
        """The number of all parameters."""
        from kdcli.student.build import count_parameters

        return count_parameters(self.module)[0]

    @property
    def parameters_without_embeddings(self) -> int:
        """The number of parameters that are not word vectors."""
        from kdcli.student.build import count_parameters

        return count_parameters(self.module)[1]

    @cached_property
    def _module_function(self) -> vocabulary.Compute:
        from kdcli.student.build import module_function

        return module_function(self.module, self.config["plugin"])

    @cached_property
    def _encoder(self) -> vocabulary.TextEncoder:
        return vocabulary.TextEncoder(self.tokenizer, self.config["max_length"])

    def _halving(self, columns: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return the logits, in batches that fit into memory."""
        from kdcli.models.device import halve_until_it_fits

        def run(rows: int) -> NDArray[np.float32]:
            self.batch_rows = rows
            return self.logits(columns)

        rows = self.batch_rows or vocabulary.ROWS
        return halve_until_it_fits(run, rows, count=len(columns[0]), reporter=QuietReporter())[0]

    def _encode(self, texts: Sequence[str], encoder: vocabulary.TextEncoder) -> vocabulary.Texts:
        if len(texts) <= FEW or not find_spec("polars"):  # a file of `kd export binary` has none
            return encoder.encode_few(texts)
        import polars as pl

        return encoder.encode(pl.Series(texts, dtype=pl.String))


def load_student(
    folder: str | Path, *, code: str | Path | None = None, device: str = "cpu", torch: bool = False
) -> Student:
    """Load a student: on the CPU without torch if its plugin has a NumPy form, else as its PyTorch module.

    Args:
        folder: The student's folder; or, as a string, the name of a student on the Hugging Face Hub, ``USER/NAME``.
        code: The file of its plugin, for a student that was made with ``--code``; from here on ``KD_CODE`` names it.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        torch: Use the PyTorch module in any case.

    Raises:
        DataError: The folder is not a student's, or a file of it is missing, broken, or another student's.
        PluginError: Its plugin is missing or broken.
        MissingError: The Hub has no such student, or cannot be reached.
    """
    use([] if code is None else [code])
    on_hub = isinstance(folder, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", folder) and not Path(folder).exists()
    folder = fetch(str(folder)) if on_hub else Path(folder)
    config = read_json(folder, "config.json")
    if config.get("format") not in READABLE:
        hint = f"it has format {config.get('format')!r}, and {FORMAT!r} is expected; {REMAKE}"
        raise DataError("this is not a folder of a student", file=folder / "config.json", hint=hint)
    known = checked(Config, config, folder / "config.json")
    task, vocabulary_size = known.task, known.vocabulary_size
    tokenizer = vocabulary.load_tokenizer(folder)
    if tokenizer.get_vocab_size() != vocabulary_size:
        what = f"this tokenizer has {tokenizer.get_vocab_size()} words, and the student has {vocabulary_size}"
        raise DataError(what, file=folder / vocabulary.FILE, hint=_FOREIGN)
    check_plugin(config, folder)
    metrics, weights = read_json(folder, "metrics.json"), folder / WEIGHTS
    checked(Metrics, metrics, folder / "metrics.json")
    try:
        student = Student(task, config, metrics, tokenizer, read_weights(weights), device)
        student.calibration, student.folder = Calibration.load(folder / CALIBRATION), folder
        if torch or device != "cpu" or not hasattr(registry.load("students", config["plugin"]), "fast"):
            _ = student.module  # whose weights are checked as it is built
        else:
            student.compute, student.batch_rows = numpy_form(config, task, student.weights), None
    except (OSError, SafetensorError, LookupError, ValueError) as error:
        hint = _FOREIGN if weights.exists() else REMAKE
        raise DataError(f"the weights cannot be read: {first_line(error)}", file=weights, hint=hint) from error
    except ProfileError as error:
        raise DataError(error.what, file=folder / "config.json", key=error.key, hint=REMAKE) from error
    return student


_UNCALIBRATED = (
    "`kd distil` calibrates on texts that it holds out, from 5,000 texts on; for another run with a test table: "
    "kd run-all --set deferral.calibrate=true"
)
_FOREIGN = "it may come from another student, or be cut: copy the folder again, or train the student again"
