import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from made_student import KINDS, MAX_LENGTH, SCORE, SINGLE, TEXTS, columns, make_student
from raising import raising
from scipy import stats

import kd_bilstm
from kdcli.errors import DataError, KdError, MissingError, PluginError, UsageError
from kdcli.export.onnx import INT8, MODEL, GraphComparison, compare, export_onnx, load_onnx, random_batches
from kdcli.files import MARKER
from kdcli.student.build import module_function
from kdcli.student.student import load_student
from kdcli.student.vocabulary import load_tokenizer
from kdcli.tasks.split import settings_of

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "onnx_predict.py"
KIND = ("words", "lengths")
FILES = {MODEL, INT8, "tokenizer.json", "tokenizer_config.json", "labels.json", "config.json", "README.md"}

each_kind = pytest.mark.parametrize("task", KINDS, ids=["classes", "pairs", "scores"])


@pytest.fixture
def student(tmp_path):
    return make_student(tmp_path / "student")


def names(folder):
    return {path.name for path in folder.iterdir()} - {MARKER}


def without(monkeypatch, library):
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)


def in_openvino(file):
    """Return a graph in OpenVINO; by itself it computes in bfloat16 on processors that have that."""
    model = openvino.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    names = [sorted(name for one in model.inputs for name in one.names if name.startswith(kind)) for kind in KIND]

    def run(*given):
        columns = zip(names, given, strict=True)
        return model({name: ids for kind, parts in columns for name, ids in zip(kind, parts, strict=True)})["logits"]

    return run


@each_kind
@pytest.mark.parametrize("options", [{}, {"cell": "gru", "layers": 2, "pooling": "max"}], ids=["lstm", "gru"])
def test_the_exported_student_has_pytorchs_logits(tmp_path, task, options):
    student = make_student(tmp_path / "student", task, **options)
    result = export_onnx(student=student, output=tmp_path / "onnx")
    assert names(tmp_path / "onnx") == FILES
    texts = columns(task, TEXTS * 20)  # more than go through the graph at once
    loaded = load_student(student, torch=True)
    expected = loaded.logits(texts)
    assert np.ptp(expected) > 0.1
    exact, rough = (load_onnx(tmp_path / "onnx", file).logits(texts) for file in (MODEL, INT8))
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-5)
    assert 1e-5 < np.abs(rough - expected).max() < 0.1  # 7 bits cost 0.06 at most; saturated sums, from 0.1 to 1.4
    found = [(one.file, one.texts, one.exact) for one in result.comparisons]
    assert found == [(MODEL, "random", True), (INT8, "random", False)]
    assert all((one.same_labels is None) == task.is_score == (one.pearson is not None) for one in result.comparisons)
    assert result.comparisons[0].alone < 1e-5 < result.comparisons[1].alone < 0.2  # twice the bound of 7 bits
    assert [list(speeds) for speeds in result.per_second.values()] == [[1, 64]] * 2
    openvino = in_openvino(tmp_path / "onnx" / MODEL)
    (found,) = compare(loaded, {MODEL: openvino}, {"random": list(random_batches(task, 20, MAX_LENGTH))})
    assert found.exact and found.alone < 1e-5


@each_kind
def test_kimcnn_in_openvino(tmp_path, task):
    student = make_student(tmp_path / "student", task, plugin="kimcnn")
    export_onnx(student=student, output=tmp_path / "onnx", int8=False, check=False)
    batches = {"random": list(random_batches(task, 20, MAX_LENGTH))}
    (found,) = compare(load_student(student, torch=True), {MODEL: in_openvino(tmp_path / "onnx" / MODEL)}, batches)
    assert found.exact and found.alone < 1e-5


def test_what_lies_in_the_folder(tmp_path, student):
    result = export_onnx(student=student, output=tmp_path / "onnx", int8=False, check=False)
    folder = tmp_path / "onnx"
    assert names(folder) == FILES - {INT8}
    reading = json.loads((folder / "tokenizer_config.json").read_text())
    assert (reading["unk_token"], reading["model_max_length"]) == ("[MASK]", MAX_LENGTH)
    assert json.loads((folder / "labels.json").read_text()) == {"labels": ["no", "yes"], "names": ["bad", "good"]}
    config = json.loads((folder / "config.json").read_text())
    assert (config["format"], config["max_length"], config["task"]["kind"]) == ("kd.onnx/1", MAX_LENGTH, "single")
    assert result.megabytes == {
        MODEL: (folder / MODEL).stat().st_size / 1e6,
        "model.safetensors": (student / "model.safetensors").stat().st_size / 1e6,
    }
    assert result.comparisons == []


def test_the_tokenizer_reads_greek_as_other_languages_do(tmp_path, student):
    """Python's ``lower`` makes of a sigma at a word's end another letter, as that of JavaScript does."""
    export_onnx(student=student, output=tmp_path / "onnx", int8=False, check=False)
    ours, given = load_tokenizer(tmp_path / "onnx"), load_tokenizer(student)
    first, second = json.loads(ours.to_str())["normalizer"]["normalizers"]
    text = "\u039f\u0394\u039f\u03a3 \u03a3 a"
    assert text.lower()[3] == "\u03c2" and second == json.loads(given.to_str())["normalizer"]
    lowered = text.replace(first["pattern"]["String"], first["content"]).lower()
    assert lowered == given.normalizer.normalize_str(text) == ours.normalizer.normalize_str(text)
    assert [ours.encode(text).ids for text in TEXTS] == [given.encode(text).ids for text in TEXTS]


def test_int8_stores_embeddings_and_recurrence_in_8_bits_and_sums_of_products_fit_into_16(tmp_path, student):
    export_onnx(student=student, output=tmp_path / "onnx", check=False)
    graph = onnx.load(tmp_path / "onnx" / INT8).graph
    assert {"DynamicQuantizeLSTM", "MatMulInteger"} <= {node.op_type for node in graph.node}
    large = [one for one in graph.initializer if np.prod(one.dims) > 4 * 6 * 2 * 2]
    assert "vectors" in {one.name for one in large}
    assert {one.data_type for one in large} <= {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    # AVX2 without VNNI adds two products of a weight and an unsigned byte in a signed 16-bit number.
    products = [node for node in graph.node if node.op_type in ("DynamicQuantizeLSTM", "MatMulInteger")]
    multiplied = {name for node in products for name in node.input if name.endswith("_quantized")}
    weights = [onnx.numpy_helper.to_array(one) for one in graph.initializer if one.name in multiplied]
    largest = [int(np.abs(values.astype(int)).max()) for values in weights]
    assert len(largest) == 4  # two of the recurrence, two of the layers above it
    assert min(largest) > 32 and 2 * 255 * max(largest) < 2**15


def test_dev_texts_are_compared_too(tmp_path, student):
    rows = "".join(f"{text}\tyes\n" for text in TEXTS * 5)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dev.tsv").write_text("sentence\tlabel\n" + rows, "utf-8")
    dev = settings_of(SINGLE).model_copy(update={"data_dir": str(tmp_path / "data")})
    found = export_onnx(student=student, output=tmp_path / "onnx", dev=dev).comparisons
    assert [(one.file, one.texts) for one in found][2:] == [(MODEL, "dev"), (INT8, "dev")]
    assert (found[2].rows, found[2].exact, found[2].same_labels) == (len(TEXTS) * 5, True, 1)
    assert "| `model.int8.onnx` | dev, 50 |" in (tmp_path / "onnx" / "README.md").read_text("utf-8")


@each_kind
def test_the_code_of_its_card_runs(tmp_path, task, capsys, monkeypatch):
    student = make_student(tmp_path / "student", task)
    export_onnx(student=student, output=tmp_path / "onnx", int8=False)
    monkeypatch.chdir(tmp_path / "onnx")
    code = Path("README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    exec(code, {})
    logits = load_student(student).logits([[text] for text in ["a text", "another"][: len(task.columns)]])
    printed = capsys.readouterr().out.strip()
    if task.is_score:
        assert float(printed) == pytest.approx(float(logits[0, 0]), abs=1e-4)
    else:
        assert printed == task.labels[logits.argmax()]


@each_kind
def test_the_example_needs_neither_torch_nor_kd(tmp_path, task):
    student = make_student(tmp_path / "student", task)
    export_onnx(student=student, output=tmp_path / "onnx", int8=False)
    texts = columns(task, [*TEXTS, *(f"{text} cold" for text in TEXTS * 3)])
    blocked = "('torch', 'kdcli', 'kd_bilstm', 'transformers', 'pyarrow', 'onnx')"
    code = f"import runpy, sys; sys.modules.update(dict.fromkeys({blocked})); runpy.run_path({str(EXAMPLE)!r})"
    command = [sys.executable, "-X", "utf8", "-c", code, str(tmp_path / "onnx")]
    lines = ["\t".join(row) for row in zip(*texts, strict=True)]
    stdin = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(command, capture_output=True, timeout=60, input=stdin, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, "")
    found = [line.split("\t") for line in done.stdout.splitlines()]
    rows = texts[0] if task.kind == "single" else list(zip(*texts, strict=True))
    expected = load_student(student).predict(rows)
    if task.is_score:
        assert [float(score) for (score,) in found] == pytest.approx([one.score for one in expected], abs=1e-4)
        assert len(set(expected)) > 1
    else:
        assert [label for label, _ in found] == [one.label for one in expected]
        likeliest = [max(one.probabilities.values()) for one in expected]
        assert [float(probability) for _, probability in found] == pytest.approx(likeliest, abs=1e-3)
        assert len({one.label for one in expected}) > 1
    if task.kind == "single":
        done = subprocess.run([*command, *lines[:1]], capture_output=True, timeout=60, encoding="utf-8")
        assert done.stdout.splitlines() == ["\t".join(found[0])]


@pytest.mark.parametrize("task", [SINGLE, SCORE], ids=["classes", "scores"])
def test_numbers_of_a_comparison(tmp_path, task):
    student = load_student(make_student(tmp_path / "student", task), torch=True)
    batches = list(random_batches(task, 20, 12))
    module = module_function(student.module, "bilstm")
    off = np.array([[0.0, 0.5]], np.float32)[:, -task.outputs :]

    def wrong(words, lengths):
        return module(words, lengths) + off * (np.arange(len(lengths[0])) % 2)[:, None]

    (found,) = compare(student, {"x": wrong}, {"random": batches})
    expected, shifted = (np.concatenate([graph(*batch) for batch in batches]) for graph in (module, wrong))
    same = None if task.is_score else np.mean(shifted.argmax(1) == expected.argmax(1))
    pearson = stats.pearsonr(shifted[:, 0], expected[:, 0]).statistic if task.is_score else None
    rows = len(expected)
    half = pytest.approx(0.5, abs=1e-5)
    assert found == GraphComparison("x", "random", rows, half, half, False, same, pytest.approx(pearson))


def test_a_graph_of_another_model_is_refused_and_nothing_is_left(tmp_path, student, monkeypatch):
    to_onnx = kd_bilstm.to_onnx

    def differ(by):
        def wrong(options, task, weights):
            return to_onnx(options, task, {**weights, "logits.bias": weights["logits.bias"] + np.float32(by)})

        monkeypatch.setattr(kd_bilstm, "to_onnx", wrong)

    differ(np.nan)
    with raising(KdError, what="differs from PyTorch by nan"):
        export_onnx(student=student, output=tmp_path / "onnx", int8=False)
    differ(1e-4)
    with raising(KdError, exit_code=1, what="differs from PyTorch by 0.0001"):
        export_onnx(student=student, output=tmp_path / "onnx")
    assert names(tmp_path) == {"student"}
    assert export_onnx(student=student, output=tmp_path / "onnx", check=False).comparisons == []
    before = (tmp_path / "onnx" / MODEL).read_bytes()
    with pytest.raises(KdError):
        export_onnx(student=student, output=tmp_path / "onnx", force=True)
    assert (tmp_path / "onnx" / MODEL).read_bytes() == before
    monkeypatch.undo()
    export_onnx(student=student, output=tmp_path / "onnx", force=True)
    assert (tmp_path / "onnx" / MODEL).read_bytes() != before
    assert names(tmp_path) == {"student", "onnx"}


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_a_missing_library_is_named(tmp_path, student, monkeypatch, library):
    without(monkeypatch, library)
    with raising(MissingError, library, hint="pip install 'kdcli[onnx]'"):
        export_onnx(student=student, output=tmp_path / "onnx")
    assert names(tmp_path) == {"student"}


def test_reading_an_export_needs_onnxruntime_alone(tmp_path, student, monkeypatch):
    export_onnx(student=student, output=tmp_path / "onnx", check=False)
    without(monkeypatch, "onnx")
    assert load_onnx(tmp_path / "onnx").logits([["good"]]).shape == (1, 2)
    without(monkeypatch, "onnxruntime")
    with pytest.raises(MissingError):
        load_onnx(tmp_path / "onnx")


def test_a_plugin_that_builds_no_graph(tmp_path, student, monkeypatch):
    monkeypatch.delattr(kd_bilstm, "to_onnx")
    with pytest.raises(PluginError, match="the student plugin bilstm cannot be exported to ONNX"):
        export_onnx(student=student, output=tmp_path / "onnx")
    monkeypatch.setattr(kd_bilstm, "to_onnx", lambda *_: 1 / 0, raising=False)
    with pytest.raises(PluginError, match="division by zero"):
        export_onnx(student=student, output=tmp_path / "onnx")
    assert names(tmp_path) == {"student"}


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", None), ("config.json", "[]"), ("config.json", '{"format": "kd.student/1"}'), (MODEL, "no graph")],
)
def test_a_folder_that_is_no_export(tmp_path, student, name, content):
    folder = tmp_path / "onnx"
    export_onnx(student=student, output=folder, int8=False, check=False)
    (folder / name).unlink()
    if content:
        (folder / name).write_text(content)
    with pytest.raises(DataError, match=r"exported student|cannot read this graph"):
        load_onnx(folder)


@pytest.mark.parametrize("output", ["run", "run/student", "run/student/onnx", "."])
def test_the_student_itself_is_never_overwritten(tmp_path, monkeypatch, output):
    student = make_student(tmp_path / "run" / "student")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"the output (is an input|lies in|contains)"):
        export_onnx(student=student, output=Path(output), force=True)
    assert load_student(student).task == SINGLE
