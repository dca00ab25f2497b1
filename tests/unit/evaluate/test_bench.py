import json
import shutil
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict

import pytest
from made_student import PAIR, SINGLE, TEXTS, columns, make_student
from raising import raising

from kdcli.cli import run
from kdcli.config.schema import Settings
from kdcli.errors import DataError, KdError
from kdcli.evaluate import bench as benching
from kdcli.evaluate.bench import BATCHES, BenchSubject, Latency, Measurement, bench, measure
from kdcli.export.onnx import export_onnx
from kdcli.student.student import load_student


class Clock:
    """A clock that a model winds on: 1 ms a call and 0.5 ms a text."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def __call__(self):
        return self.now

    def logits(self, texts):
        self.calls.append(texts)
        self.now += 0.001 + 0.0005 * len(texts[0])


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr("kdcli.evaluate.bench.time.perf_counter", found)
    return found


def test_rates_and_latencies_are_those_of_the_clock(clock, monkeypatch):
    monkeypatch.setattr(benching, "_load", lambda subject: (clock.logits, 1.5, (None, None)))
    subject = BenchSubject("x", "numpy", "", SINGLE)
    found = measure(subject, [[str(number) for number in range(6000)]], 0.1)
    assert found.per_second == pytest.approx({1: 1 / 0.0015, 32: 32 / 0.017, 512: 512 / 0.257})
    assert (found.latency.p50, found.latency.p99, found.latency.calls) == pytest.approx((1.5, 1.5, 67))
    sizes = [len(call[0]) for call in clock.calls]
    assert (sizes.count(1), sizes.count(32), sizes.count(512)) == (1 + 67, 1 + 6, 1 + 1)
    texts = [text for call in clock.calls for text in call[0]]
    assert len(texts) == len(set(texts)), "no text is timed twice"
    assert found.megabytes == 1.5 and found.parameters is None
    few = measure(subject, [[str(number) for number in range(15)]], 0).per_second
    assert few == pytest.approx({1: 1 / 0.0015, 32: 3 / 0.0025, 512: 3 / 0.0025}), "2 of 5 warm up; one call at least"


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return make_student(tmp_path_factory.mktemp("student") / "student")


@pytest.fixture(scope="module")
def onnx(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "onnx"
    export_onnx(student=student, output=folder, check=False)
    return folder


def test_the_forms_of_a_student(student, onnx):
    module = load_student(student)
    for kind, place, file in (
        ("pytorch", student, "model.safetensors"),
        ("numpy", student, "model.safetensors"),
        ("onnx", onnx, "model.onnx"),
        ("int8", onnx, "model.int8.onnx"),
    ):
        found = measure(BenchSubject(kind, kind, str(place), SINGLE), columns(SINGLE), 0.0)
        assert found.kind == kind and set(found.per_second) == set(BATCHES)
        assert all(rate > 0 for rate in found.per_second.values()) and found.latency.calls == 1
        assert found.megabytes == (place / file).stat().st_size / 1e6
        assert found.parameters == (module.parameters if kind == "pytorch" else None)
        assert found.gpu_peak_megabytes is None and found.device == "cpu"


@pytest.fixture
def faked(monkeypatch):
    calls = []

    def alone(work, subject, texts, seconds):
        assert work is benching.measure
        calls.append((subject, texts, seconds))
        slow = {"pytorch": 10.0, "numpy": 1.0, "onnx": 2.0, "int8": 1.5, "teacher": 400.0}[subject.kind]
        rates = {batch: batch * 1000 / slow for batch in BATCHES}
        parameters = {"pytorch": (1000, 200), "teacher": (350_000, 300_000)}.get(subject.kind, (None, None))
        taken = Latency(slow, 2 * slow, 3 * slow, 10)
        what = subject.name, subject.kind, subject.place, "cpu"
        return Measurement(*what, rates, taken, *parameters, slow, 100 + slow, None, 0.1)

    monkeypatch.setattr(benching, "_alone", alone)
    return calls


def test_all_models_on_the_same_texts(student, onnx, tmp_path, faked):
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\n" + "".join(f"{text}\tyes\n" for text in TEXTS), "utf-8")
    task = {"labels": ["no", "yes"], "data_dir": str(tmp_path)}
    settings = Settings.model_validate({"task": task, "precision": "bf16", "teacher": {"max_length": 64}})
    found = bench(student=student, teacher="some/body", onnx=onnx, settings=settings, seconds=0.5)
    assert [one.kind for one in found.models] == ["pytorch", "numpy", "onnx", "int8", "teacher"]
    assert all(texts == faked[0][1] and seconds == 0.5 for _, texts, seconds in faked)
    assert sorted(faked[0][1][0]) == sorted(TEXTS) and faked[0][1][0] != TEXTS, "in random order"
    teacher = faked[-1][0]
    assert (teacher.place, teacher.precision) == ("some/body", "bf16")
    assert teacher.source and (teacher.source.model, teacher.source.max_length) == ("some/body", 64)
    assert {one.parameters for one in found.models[:-1]} == {1000}, "all forms have the module's"
    assert found.teacher is found.models[-1]
    assert found.texts == len(TEXTS) and found.source == f"dev of {tmp_path}"
    assert found.words == pytest.approx(sum(len(text.split()) for text in TEXTS) / len(TEXTS))
    json.dumps(asdict(found))


def test_the_table_tells_how_many_times_better_than_the_teacher_they_are(student, faked, capsys):
    assert run(["bench", "--student", str(student), "--teacher", "some/body"]) == 0
    lines = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert {
        "sentences/s, batch 1 100 1,000 2.5",
        "parameters 1,000 1,000 350,000",
        "faster than the teacher, batch 32 40x 400x",
        "shorter latency 40x 400x",
        "fewer parameters 350x 350x",
        "smaller on disk 40x 400x",
        "less memory 4.55x 4.95x",
    } <= lines


def test_pairs(tmp_path, faked):
    student = make_student(tmp_path / "student", PAIR)
    bench(student=student, settings=Settings(), profiled=False)
    first, second = faked[0][1]
    assert len(first) == 160 and second == [*first[1:], first[0]]
    (tmp_path / "t.tsv").write_text("sentence1\tsentence2\nfirst one\tsecond one\n")
    found = bench(student=student, settings=Settings(), profiled=False, table=tmp_path / "t.tsv")
    assert faked[-1][1] == [["first one"], ["second one"]] and found.words == 4


def test_a_folder_without_graphs_and_one_without_that_in_8_bits(student, onnx, tmp_path, faked):
    with raising(DataError, file=tmp_path, hint="kd export onnx"):
        bench(student=student, onnx=tmp_path, settings=Settings(), profiled=False)
    shutil.copytree(onnx, tmp_path / "float")
    (tmp_path / "float" / "model.int8.onnx").unlink()
    found = bench(student=student, onnx=tmp_path / "float", settings=Settings(), profiled=False)
    assert [model.kind for model in found.models] == ["pytorch", "numpy", "onnx"]


def test_a_model_that_does_not_fit_into_memory(student, monkeypatch):
    def killed(*_):
        raise BrokenProcessPool

    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor.submit", killed)
    with pytest.raises(KdError, match="the process that measured student, PyTorch was killed"):
        bench(student=student, settings=Settings(), profiled=False)
