"""A student as ONNX: a folder that onnxruntime and tokenizers read, without torch and without kd; and kd reads it.

Each graph is compared with PyTorch, on padded batches of all kinds. Reading a graph must not import torch.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import cycle
from pathlib import Path
from time import thread_time
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from tokenizers import Tokenizer, normalizers

from kdcli import __version__, registry
from kdcli.api import MASK, QuietReporter, Reporter, Task
from kdcli.errors import DataError, KdError, MissingError, PluginError, first_line
from kdcli.export.bits import narrow_tables, quantise
from kdcli.files import atomic, check_output
from kdcli.student.loading import PossibleTask
from kdcli.student.student import WEIGHTS, Student, load_student
from kdcli.student.vocabulary import PAD, Columns, Compute, load_tokenizer, save_tokenizer
from kdcli.tasks.answers import answers, same

if TYPE_CHECKING:
    from kdcli.config.schema import TaskSettings
    from kdcli.student.dataset import Examples

FORMAT = "kd.onnx/1"
MODEL, INT8 = "model.onnx", "model.int8.onnx"
BATCH = 16  # texts that go through a graph at once: more of them overflow the processor's caches, and it takes longer
DEV_ROWS = 2048  # texts of dev that a graph is compared on
SIZES = (1, 2, 7, 32)  # rows of a batch that graphs are compared on
LONGEST = (1, 2, 5, 13, 40)  # words of such a batch's longest text, beside the most that the student reads
TOLERANCE = 1e-5  # for float32: |ours - PyTorch's| is at most this, and this share of PyTorch's more
TIMED, WORDS, SECONDS = (1, 64), 20, 0.1
"""Rows of the batches that graphs are timed on, words of each text, and how long."""


class Session:
    """A graph, ready to run on the CPU; with 0 threads, onnxruntime chooses their number."""

    def __init__(self, file: Path, threads: int = 0) -> None:
        onnxruntime = need("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors alone: the export has shown the warnings
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's own kinds have no common one
            what = f"onnxruntime cannot read this graph: {first_line(error)}"
            raise DataError(what, file=file, hint="`kd export onnx` writes it again") from error

    def __call__(self, words: Columns, lengths: Columns) -> NDArray[np.float32]:
        """Return logits, ``float32 [batch, outputs]``, of words ``[batch, time]`` and lengths ``[batch]``."""
        inputs: dict[str, NDArray[np.int64]] = {}
        for number, ids, counts in zip(("",) if len(words) == 1 else ("1", "2"), words, lengths, strict=True):
            inputs |= {f"words{number}": ids.astype(np.int64), f"lengths{number}": counts.astype(np.int64)}
        return np.asarray(self._session.run(None, inputs)[0], np.float32)


def load_onnx(folder: str | Path, file: str = MODEL, threads: int = 0) -> Student:
    """Load an exported student; another folder is a ``DataError``, missing onnxruntime a ``MissingError``."""
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if config["format"] != FORMAT:
            raise ValueError(f"its format is {config['format']!r}, and {FORMAT!r} is expected")
        task = TypeAdapter[Task](PossibleTask).validate_python(config["task"])
    except (OSError, LookupError, TypeError, ValueError) as error:
        hint = "name the folder that `kd export onnx` has written"
        raise DataError(f"this is not a folder of an exported student: {error}", file=folder, hint=hint) from error
    session = Session(folder / file, threads)
    return Student(task, config, {}, load_tokenizer(folder), {}, compute=session, batch_rows=BATCH)


def need(library: str) -> Any:
    """Import onnx or onnxruntime; a ``MissingError`` holds the line that installs it."""
    try:
        return import_module(library)
    except ImportError as error:
        raise MissingError(f"ONNX needs the library {library}", hint="pip install 'kdcli[onnx]'") from error


@dataclass(frozen=True)
class GraphComparison:
    """A graph against PyTorch on the same batches."""

    file: str
    texts: str  # ``random`` words, or the texts of ``dev``
    rows: int
    difference: float  # the largest between two logits
    alone: float  # the largest between two logits of the graph: of a text in its batch, and by itself
    exact: bool  # whether all are within ``TOLERANCE`` of PyTorch's
    same_labels: float | None  # share of rows; None for scores
    pearson: float | None  # correlation of the scores; None for labels


@dataclass(frozen=True)
class OnnxExport:
    """The result of an export."""

    folder: Path
    task: str
    megabytes: dict[str, float]  # of each graph, and of the student's weights, 10^6 bytes
    comparisons: list[GraphComparison]  # each graph against PyTorch; empty without a check
    # texts of 20 words by the rows of a batch, on one thread, of the best call; empty without a check
    per_second: dict[str, dict[int, float]]


def export_onnx(
    *,
    student: Path,
    output: Path,
    int8: bool = True,
    check: bool = True,
    dev: "TaskSettings | None" = None,
    force: bool = False,
    reporter: Reporter = QuietReporter(),
) -> OnnxExport:
    """Write a student as ONNX, whole and right or not at all: the graphs, the tokenizer, the labels and a card.

    ``int8`` adds a second graph with 8-bit weights. ``check`` compares with PyTorch on random words, and on the texts
    of ``dev``, and times the graphs: one that does not give PyTorch's logits is a ``KdError``. ``force`` replaces an
    earlier export.
    """
    from kdcli.student.dataset import encode_table
    from kdcli.tasks.split import load_split

    need("onnx")
    need("onnxruntime")
    check_output(output, [student], force=force)
    loaded = load_student(student, torch=True)
    task, max_length = loaded.task, loaded.config["max_length"]
    texts = {"random": list(random_batches(task, loaded.config["vocabulary_size"], max_length))} if check else {}
    if check and dev is not None:
        table = load_split(dev, task, "dev", reporter).select(task.columns).head(DEV_ROWS)
        texts["dev"] = list(_text_batches(encode_table(table, loaded.tokenizer, task, max_length)))
    graph = _graph(loaded)
    files = [MODEL, INT8] if int8 else [MODEL]
    with atomic(output) as folder, reporter.progress("export", 3, "steps") as progress:
        folder.mkdir()
        (folder / MODEL).write_bytes(graph)
        progress.advance()
        if int8:
            quantise(folder / MODEL, folder / INT8)
            narrow_tables(folder / INT8, int8=True)
        narrow_tables(folder / MODEL)
        progress.advance()
        graphs = {file: Session(folder / file, threads=1) for file in files}
        comparisons = compare(loaded, graphs, texts)
        for one in comparisons:
            if one.file == MODEL and not one.exact:
                what = f"{MODEL} differs from PyTorch by {one.difference:.2g}, on {one.texts} texts"
                hint = "its plugin's to_onnx is not the same model; --no-check would write it all the same"
                raise KdError(what, hint=hint)
        progress.advance()
        speeds = {file: speed(graph, task, loaded.config["vocabulary_size"]) for file, graph in graphs.items() if check}
        megabytes = {file: (folder / file).stat().st_size / 1e6 for file in files}
        _describe(folder, loaded, megabytes, comparisons, speeds)
    megabytes[WEIGHTS] = (student / WEIGHTS).stat().st_size / 1e6
    return OnnxExport(output, task.name, megabytes, comparisons, speeds)


def compare(
    student: Student, graphs: Mapping[str, Compute], texts: Mapping[str, Sequence[tuple[Columns, Columns]]]
) -> list[GraphComparison]:
    """Compare graphs, by the names of their files, with PyTorch on batches of words and lengths, by name."""
    from kdcli.student.build import module_function
    from kdcli.tasks.metrics import score

    found, task = [], student.task
    module = module_function(student.module, student.config["plugin"])
    for name, batches in texts.items():
        expected = np.concatenate([module(*batch) for batch in batches])
        for file, graph in graphs.items():
            logits = np.concatenate([graph(*batch) for batch in batches])
            alone = np.concatenate([graph(*row) for batch in batches for row in _rows(*batch)])
            difference, apart = (float(np.abs(logits - other).max()) for other in (expected, alone))
            exact = np.allclose(logits, expected, TOLERANCE, TOLERANCE)
            alike = None if task.is_score else float(same(answers(logits, task), answers(expected, task)).mean())
            pearson = score(task, logits, expected[:, 0])["pearson"] if task.is_score else None
            found.append(GraphComparison(file, name, len(logits), difference, apart, exact, alike, pearson))
    return found


def _rows(words: Columns, lengths: Columns) -> Iterator[tuple[Columns, Columns]]:
    """Return each row of a batch as a batch of its own, without padding."""
    for row in range(len(lengths[0])):
        counts = tuple(column[row : row + 1] for column in lengths)
        yield tuple(ids[row : row + 1, : count[0]] for ids, count in zip(words, counts, strict=True)), counts


def speed(graph: Compute, task: Task, vocabulary: int) -> dict[int, float]:
    """Return the texts a second of a graph by the rows of a batch; their words are random."""
    numbers, found = np.random.default_rng(0), {}
    for rows in TIMED:
        words = tuple(numbers.integers(1, max(vocabulary, 2), (rows, WORDS)) for _ in task.columns)
        lengths = tuple(np.full(rows, WORDS) for _ in task.columns)
        ends = [thread_time()]
        while ends[-1] < ends[0] + SECONDS:
            graph(words, lengths)
            ends.append(thread_time())
        found[rows] = float(rows / np.diff(ends).min())
    return found


def random_batches(task: Task, vocabulary: int, max_length: int) -> Iterator[tuple[Columns, Columns]]:
    """Make batches of random words, of each size and several lengths, with padding beyond the longest text too."""
    numbers = np.random.default_rng(0)
    for longest in sorted({min(longest, max_length) for longest in (*LONGEST, max_length)}):
        for size in SIZES:
            columns = []
            for _ in task.columns:
                lengths = numbers.integers(1, longest + 1, size)
                lengths[numbers.integers(size)] = longest
                width = longest + numbers.integers(3)
                words = numbers.integers(1, max(vocabulary, 2), (size, width))
                columns.append((words * (np.arange(width) < lengths[:, None]), lengths))
            yield tuple(words for words, _ in columns), tuple(lengths for _, lengths in columns)


def _text_batches(examples: "Examples") -> Iterator[tuple[Columns, Columns]]:
    """Make batches of real texts in their own order, whatever their lengths, of each size in turn."""
    rows, sizes = np.arange(len(examples)), cycle(SIZES)
    while len(rows):
        size = next(sizes)
        words, lengths = zip(*(texts.padded(rows[:size]) for texts in examples.texts), strict=True)
        yield words, lengths
        rows = rows[size:]


def _graph(student: Student) -> bytes:
    name = student.config["plugin"]
    plugin: Any = registry.load("students", name)
    if not hasattr(plugin, "to_onnx"):
        hint = "a student plugin says how by its function to_onnx; the plugin bilstm has one"
        raise PluginError(f"the student plugin {name} cannot be exported to ONNX", hint=hint)
    valid = registry.options("students", name, student.config["options"])
    with registry.blaming("students", name, "to_onnx"):
        graph: bytes = plugin.to_onnx(valid, student.task, student.weights).SerializeToString()
    return graph


def _describe(
    folder: Path,
    student: Student,
    megabytes: Mapping[str, float],
    comparisons: Sequence[GraphComparison],
    per_second: Mapping[str, Mapping[int, float]],
) -> None:
    """Write what a program needs beside the graphs, and a card."""
    from kdcli.student.card import summary

    task, config = student.task, student.config
    save_tokenizer(_portable(student.tokenizer), folder)
    # JavaScript's tokenizers read these from here alone.
    reading = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config["max_length"]}
    reading |= {"unk_token": MASK, "mask_token": MASK, "pad_token": PAD, "truncation_side": "right"}
    kept = {name: config[name] for name in ("plugin", "options", "vocabulary_size", "max_length")}
    kept = {"format": FORMAT, **kept, "task": asdict(task), "kd": __version__}
    labels: dict[str, Any] = {"labels": task.labels, "names": task.names}
    labels |= {"multi_label": True, "thresholds": task.thresholds or [0.5] * task.outputs} if task.multi_label else {}
    files = {"config.json": kept, "labels.json": labels, "tokenizer_config.json": reading}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    template = jinja2.Template(Path(__file__).with_name("onnx.md").read_text("utf-8"), undefined=jinja2.StrictUndefined)
    values = {"task": task, "summary": summary(task), "max_length": config["max_length"], "megabytes": megabytes}
    values |= {"comparisons": comparisons, "per_second": per_second}
    (folder / "README.md").write_text(f"{template.render(values)}\n", "utf-8")


def _portable(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer that reads Greek alike everywhere: JavaScript lower-cases a sigma by its place in the word."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    sigma = copy.normalizer.normalize_str("Σ")
    copy.normalizer = normalizers.Sequence([normalizers.Replace("Σ", sigma), copy.normalizer])
    return copy
