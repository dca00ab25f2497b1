"""A student as ONNX: a folder that onnxruntime and tokenizers read, without torch and without kd."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdcli import __version__, registry
from kdcli.api import Batch, QuietReporter, Reporter
from kdcli.config.schema import TaskSettings
from kdcli.errors import KdError, PluginError, first_line
from kdcli.export.card import onnx_card
from kdcli.export.exported import refuse_output
from kdcli.export.onnx_check import Comparison, compare, random_batches, text_batches
from kdcli.export.onnx_student import FORMAT, INT8, MODEL, Session, need
from kdcli.files import atomic
from kdcli.student.encoding import encode_table
from kdcli.student.folder import LoadedStudent, load_student
from kdcli.student.vocabulary import save_tokenizer
from kdcli.tasks.split import load_split

QUANTISED = ("Conv", "Gather", "LSTM", "MatMul")
"""Operators whose weights are stored in 8 bits; onnxruntime has no such GRU."""
ROWS = 2048
"""Texts of dev that a graph is compared on."""


@dataclass(frozen=True)
class OnnxExport:
    """What was exported.

    Attributes:
        folder: Where it lies.
        task: The name of the task.
        megabytes: The size of each graph, and of the weights that they were made from, in 10^6 bytes.
        comparisons: Each graph against PyTorch; empty where it was not checked.
    """

    folder: Path
    task: str
    megabytes: dict[str, float]
    comparisons: list[Comparison]


def export_onnx(
    *,
    student: Path,
    output: Path,
    int8: bool = True,
    check: bool = True,
    dev: TaskSettings | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
) -> OnnxExport:
    """Write a student as ONNX, whole and right or not at all.

    Args:
        student: The student's folder.
        output: The folder to write: the graphs, the tokenizer, the labels and what is to be known of them.
        int8: Write a second graph with 8-bit weights too.
        check: Compare with PyTorch.
        dev: Where the task's dev texts lie, to compare on them too; otherwise on random words alone.
        force: Replace an earlier export.
        reporter: Shows the progress.

    Raises:
        DataError: The folder is not a student's, the output exists, or the texts cannot be read.
        KdError: The graph does not give PyTorch's logits.
        MissingError: onnx or onnxruntime is not installed.
        PluginError: The student's plugin builds no graph.
        UsageError: The output and the student's folder overlap.
    """
    reporter = reporter or QuietReporter()
    need("onnx")
    need("onnxruntime")
    refuse_output(output, student, force=force)
    loaded = load_student(student)
    texts = _texts(loaded, dev, reporter) if check else {}
    graph = _graph(loaded)
    with atomic(output) as folder, reporter.progress("export", 3, "steps") as progress:
        folder.mkdir()
        (folder / MODEL).write_bytes(graph)
        progress.advance()
        if int8:
            _quantise(folder / MODEL, folder / INT8)
        progress.advance()
        files = [MODEL, INT8] if int8 else [MODEL]
        comparisons = compare(loaded, {file: Session(folder / file) for file in files}, texts)
        _refuse_difference(comparisons)
        progress.advance()
        megabytes = {file: (folder / file).stat().st_size / 1e6 for file in files}
        _describe(folder, loaded, megabytes, comparisons)
    megabytes["model.safetensors"] = (student / "model.safetensors").stat().st_size / 1e6
    return OnnxExport(output, loaded.task.name, megabytes, comparisons)


def _graph(student: LoadedStudent) -> bytes:
    name, options = student.config["plugin"], student.config["options"]
    plugin: Any = registry.load("students", name)
    if not hasattr(plugin, "to_onnx"):
        hint = "a student plugin says how by its function to_onnx; the plugin bilstm has one"
        raise PluginError(f"the student plugin {name} cannot be exported to ONNX", hint=hint)
    weights = {key: value.numpy() for key, value in student.module.state_dict().items()}
    valid = registry.options("students", name, options)
    with registry.blaming("students", name, "to_onnx"):
        graph: bytes = plugin.to_onnx(valid, student.task, weights).SerializeToString()
    return graph


def _quantise(source: Path, target: Path) -> None:
    """Store the weights in 8 bits, a scale for each row of a matrix; what passes through is scaled as it comes."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    shaped = source.with_name(f".{source.name}")
    try:
        quant_pre_process(source, shaped, skip_optimization=True, skip_symbolic_shape=True)
        quantize_dynamic(
            shaped,
            target,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            # 7 bits of the 8: AVX2 without VNNI adds two products in 16 bits, and full weights would saturate there.
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    except Exception as error:
        hint = "--no-int8 leaves the 8-bit graph out"
        raise KdError(f"onnxruntime cannot quantise this graph: {first_line(error)}", hint=hint) from error
    finally:
        shaped.unlink(missing_ok=True)


def _texts(student: LoadedStudent, dev: TaskSettings | None, reporter: Reporter) -> dict[str, list[Batch]]:
    task, max_length = student.task, student.config["max_length"]
    texts = {"random": list(random_batches(task, student.config["vocabulary_size"], max_length))}
    if dev is not None:
        table = load_split(dev, task, "dev", reporter).select(task.columns).slice(0, ROWS)
        texts["dev"] = list(text_batches(encode_table(table, student.tokenizer, task, max_length)))
    return texts


def _refuse_difference(comparisons: Sequence[Comparison]) -> None:
    for one in comparisons:
        if one.file == MODEL and not one.exact:
            what = f"{MODEL} differs from PyTorch by {one.difference:.2g}, on {one.texts} texts"
            hint = "its plugin's to_onnx is not the same model; --no-check would write it all the same"
            raise KdError(what, hint=hint)


def _describe(
    folder: Path, student: LoadedStudent, megabytes: dict[str, float], comparisons: Sequence[Comparison]
) -> None:
    """Write all that a program needs beside the graphs, and what a reader wants to know."""
    task, config = student.task, student.config
    save_tokenizer(student.tokenizer, folder)
    kept = {name: config[name] for name in ("plugin", "options", "vocabulary_size", "max_length")}
    files: dict[str, Any] = {
        "config.json": {"format": FORMAT, **kept, "task": asdict(task), "kd": __version__},
        "labels.json": {"labels": task.labels, "names": task.names},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    found = [asdict(one) for one in comparisons]
    (folder / "README.md").write_text(onnx_card(config, task, megabytes, found), "utf-8")
