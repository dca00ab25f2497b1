import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from e2e.conftest import MODELS, refused, succeeded
from glue_tables import TASKS, write
from sklearn.metrics import f1_score

import kdcli.tasks

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "glue"

SMALL = """
extends = "{name}"
device = "cpu"
[transfer.lite]
n_iter = 2
workers = 1
[transfer.heavy]
num_samples = 24
batch_size = 64
[generators.gpt2]
model = "tiny"
vocab_size = 400
max_length = 96
lr = 1e-2
batch_size = 16
epochs = {generator_epochs}
gradient_checkpointing = false
[teacher]
model = "config"
vocab_size = 400
lr = 1e-3
epochs = 1
batch_size = 16
max_length = 64
[student]
vectors = ""
dimension = 8
epochs = 1
batch_size = 16
"""

METRICS = {"cola": ["mcc"], "mrpc": ["f1", "accuracy"], "qqp": ["f1", "accuracy"], "stsb": ["pearson", "spearman"]}


def profile(tiny, name, generator_epochs=12):
    path = tiny.root / f"{name}.toml"
    path.write_text(SMALL.format(name=name, generator_epochs=generator_epochs) + MODELS)
    return path


def run_all(tiny, path, data, method, *more):
    run_dir = tiny.root / f"run-{method}"
    where = ["--profile", path, "--data-dir", data, "--run-dir", run_dir, "--set", f"transfer.method={method}"]
    ended = succeeded(tiny.kd("run-all", *where, *more, "--json"))
    return run_dir, ended


def goes_on(tiny, run_dir, *more):
    for line in (
        ("eval", "--student", run_dir, "--teacher", run_dir, *more),
        ("bench", "--student", run_dir, "--seconds", 0, *more),
        ("export", "onnx", "--student", run_dir, "--output", tiny.root / "onnx"),
        ("export", "hub-folder", "--student", run_dir, "--output", tiny.root / "hub"),
        ("report", run_dir),
    ):
        ended = tiny.kd(*line, "--json")
        assert ended.code == 0, (line, ended.err)
        if line[0] == "bench":
            found = {one["kind"]: one for one in ended.result["models"]}
            results = json.loads((run_dir / "results.json").read_text())
            sizes = {row["model"]: row["parameters"] for row in results["rows"]}
            assert found["pytorch"]["parameters"] == found["numpy"]["parameters"] == sizes["student"]
            assert found["teacher"]["parameters"] == sizes["teacher"]
            assert found["numpy"]["peak_megabytes"] < found["pytorch"]["peak_megabytes"] - 100, "it needs no torch"
            assert json.loads((run_dir / "bench.json").read_text()) == ended.result
    assert "speed" in ended.result["sections"]


def check_results(name, results, dev_tables):
    metrics = METRICS.get(name, ["accuracy"])
    assert results["metrics"] == metrics
    assert list(results["gap_closed"]) == dev_tables
    for row in results["rows"]:
        for scores in row["scores"].values():
            assert list(scores) == metrics
            assert all(-1 <= value <= 1 for values in scores.values() for value in values)


QUICK = ("mrpc", "stsb")
"""A task of pairs and one of scores; the others are slow."""


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TASKS]
)
def test_every_task_goes_through(tiny, name):
    data = tiny.root / name
    write(name, data)
    glue = TASKS[name]
    run_dir, ended = run_all(tiny, profile(tiny, name), data, "lite" if name in QUICK else "lite+heavy")
    dev_tables = ["dev_matched", "dev_mismatched"] if name == "mnli" else ["dev"]
    check_results(name, ended.result["result"], dev_tables)
    joined = pl.read_parquet(run_dir / "join" / "joined.parquet")
    rows = [glue.row(place) for place in range(48)]
    without_gold = sum(row[glue.label] == "-" for row in rows)
    originals = joined.filter(pl.col("source") == "original")
    assert (without_gold, len(originals)) == ((3, 45) if name == "mnli" else (0, 48))
    assert set(joined["source"]) == {"original", "lite"} | ({"heavy"} if name not in QUICK else set())
    assert sum(column.startswith("logits_") for column in joined.columns) == {"mnli": 3, "stsb": 1}.get(name, 2)
    predicted = tiny.root / "predictions.tsv"
    source = ["--input", data / f"{glue.test[0]}.tsv"]
    assert tiny.kd("predict", "--student", run_dir / "student", *source, "--output", predicted).code == 0
    lines = [line.split("\t") for line in predicted.read_text().splitlines()[1:]]
    assert [line[0] for line in lines] == [str(number) for number in range(12)]
    if name == "stsb":
        assert all(0 <= float(line[1]) <= 5 for line in lines)
    else:
        assert {line[1] for line in lines} <= {row[glue.label] for row in rows} - {"-"}
    goes_on(tiny, run_dir)


@pytest.mark.slow
def test_the_demo(tiny):
    run_dir, small = tiny.root / "run", ["--set", "transfer.lite.n_iter=1", "--set", "student.epochs=2"]
    ended = succeeded(tiny.kd("run-all", "--run-dir", run_dir, *small, "--set", "teacher.epochs=1", "--json"))
    check_results("demo", ended.result["result"], ["dev", "test"])
    table = Path(kdcli.tasks.__file__).parent / "sample" / "test.tsv"
    ended = tiny.kd("predict", "--student", run_dir, "--input", table, "--json")
    assert ended.code == 0 and len(ended.result["predictions"]) > 100
    goes_on(tiny, run_dir)


@pytest.mark.slow
def test_the_student_of_mnli_predicts_the_diagnostics(tiny):
    data = tiny.root / "mnli"
    write("mnli", data)
    run_dir, _ = run_all(tiny, profile(tiny, "mnli"), data, "lite")
    pairs = [("Anna left .", "Anna is gone ."), ("It rains .", "It is dry ."), ("He ate .", "He was hungry .")]
    table = tiny.root / "diagnostic.tsv"
    table.write_text("index\tsentence1\tsentence2\n" + "".join(f"{n}\t{a}\t{b}\n" for n, (a, b) in enumerate(pairs)))
    for model in (["--student", run_dir / "student"], ["--teacher", run_dir / "teacher"]):
        ended = succeeded(tiny.kd("predict", *model, "--profile", "ax", "--input", table, "--json"))
        predictions = ended.result["predictions"]
        assert [row["index"] for row in predictions] == ["0", "1", "2"]
        assert {row["prediction"] for row in predictions} <= {"entailment", "neutral", "contradiction"}
    labelled = tiny.root / "labelled.tsv"
    labels = ("entailment", "contradiction", "neutral")
    rows = "".join(f"{a}\t{b}\t{label}\n" for (a, b), label in zip(pairs, labels, strict=True))
    labelled.write_text("sentence1\tsentence2\tlabel\n" + rows)
    goes_on(tiny, run_dir, "--profile", "ax", "--input", labelled)
    submission = tiny.root / "submission"
    ax = tiny.root / "ax"
    ax.mkdir()
    table.rename(ax / "diagnostic.tsv")
    succeeded(tiny.kd("predict", "--student", run_dir, "--profile", "ax", "--data-dir", ax, "--glue", submission))
    assert [len(file.read_text().splitlines()) for file in submission.iterdir()] == [4]
    refused(tiny.kd("run-all", "--profile", "ax", "--data-dir", tiny.root), 2, "mnli", "kd run-all --profile mnli")


def test_a_custom_task_by_flags_alone(tiny):
    data = tiny.root / "custom"
    data.mkdir()
    for split, places in (("train", range(40)), ("dev", range(40, 60))):
        rows = [TASKS["sst2"].row(place) for place in places]
        moods = {"0": "neg", "1": "pos"}
        lines = [f"{place},{text.strip()},{moods[label]}" for place, (text, label) in enumerate(rows)]
        (data / f"{split}.csv").write_text("\n".join(["nr,opinion,mood", *lines]) + "\n")
    columns = ["--text-col", "opinion", "--label-col", "mood", "--set", 'task.labels=["neg", "pos"]']
    run_dir, ended = run_all(tiny, profile(tiny, "custom"), data, "lite", *columns)
    check_results("custom", ended.result["result"], ["dev"])
    ended = tiny.kd("predict", "--student", run_dir, "--input", data / "dev.csv", "--json")
    assert {row["prediction"] for row in ended.result["predictions"]} <= {"neg", "pos"}
    for split in ("train", "dev"):
        header, *lines = (data / f"{split}.csv").read_text().splitlines()
        (data / f"{split}.csv").write_text("\n".join([f"{header},other", *(f"{line},x" for line in lines)]))
    pair = [*columns[:2], "--text2-col", "other", *columns[2:]]
    tiny.root.joinpath("run-lite").rename(tiny.root / "run-single")
    run_dir, _ = run_all(tiny, profile(tiny, "custom"), data, "lite", *pair, "--until", "join")
    assert pl.read_parquet(run_dir / "join" / "joined.parquet").columns[:2] == ["sentence1", "sentence2"]
    line = ["run-all", "--profile", "custom", "--data-dir", data, "--run-dir", tiny.root / "r"]
    refused(tiny.kd(*line, "--text2-col", "other"), 2, "--text2-col", "--text-col")
    refused(tiny.kd(*line, "--text-col", "review"), 4, "'review'", "opinion")


NAMES = ("SST-2", "CoLA", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE")
FOLDERS = {name.lower().replace("-", ""): name for name in NAMES}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
@pytest.mark.parametrize("method", ["lite", "heavy"])
@pytest.mark.parametrize("name", FOLDERS)
def test_real_rows_go_through(tiny, name, method):
    data = tiny.root / name
    data.mkdir()
    for table in (SHARED / FOLDERS[name]).glob("*.tsv"):
        with table.open(encoding="utf-8", newline="\n") as file:
            (data / table.name).write_text("".join(line for line, _ in zip(file, range(301), strict=False)), "utf-8")
    own = profile(tiny, name, generator_epochs=4)
    run_dir, ended = run_all(tiny, own, data, method, "--set", "generators.gpt2.max_length=256")
    check_results(name, ended.result["result"], ["dev_matched"] if name == "mnli" else ["dev"])
    report = json.loads((run_dir / "results.json").read_text())
    models = [row["model"] for row in report["rows"]]
    assert [model for model in models if model != "tf-idf"] == ["teacher", "baseline", "student"]


LABELS = ("red", "blue", "green")
COLOURS = """
extends = "base"
device = "cpu"
[task]
name = "colours"
labels = ["red", "blue", "green"]
multi_label = true
metric = "micro_f1"
more_metrics = ["macro_f1", "subset_accuracy"]
[transfer.lite]
n_iter = 1
workers = 1
[teacher]
model = "config"
vocab_size = 200
lr = 1e-2
epochs = 4
batch_size = 16
max_length = 32
class_weights = "balanced"
[teacher.config]
model_type = "bert"
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 16
max_position_embeddings = 64
[student]
kd_loss = "bce"
ce_weight = 0.5
class_weights = "balanced"
dimension = 8
epochs = 3
batch_size = 16
"""


def rows(count, seed):
    draw = random.Random(seed)
    for _ in range(count):
        said = [label for label in LABELS if draw.random() < 0.4]
        words = [*said, *(draw.choice(["house", "river", "stone", "cloud", "field"]) for _ in range(4))]
        draw.shuffle(words)
        yield {"sentence": f"{' '.join(words)} {draw.randrange(999)}", **{one: int(one in said) for one in LABELS}}


@pytest.mark.slow
def test_all_commands(tiny):
    for name, count in (("train", 160), ("dev", 60), ("test", 40)):
        table = pl.DataFrame(list(rows(count, count)))
        table.write_csv(tiny.root / f"{name}.csv")
    path, run = tiny.root / "colours.toml", tiny.root / "run"
    path.write_text(COLOURS)
    where = ["--profile", path, "--data-dir", tiny.root]
    succeeded(tiny.kd("data", "check", *where, "--json"))
    succeeded(tiny.kd("run-all", *where, "--run-dir", run, "--json"))
    joined = pl.read_parquet(run / "join" / "joined.parquet")
    logits = joined.select(pl.col("^logits_.*$")).to_numpy()
    assert joined["label"].to_list() == ["|".join(np.array(LABELS)[row > 0]) for row in logits]
    task = json.loads((run / "student" / "config.json").read_text())["task"]
    thresholds = np.array(task["thresholds"])
    assert task["multi_label"] and len(thresholds) == 3
    goes_on(tiny, run)
    assert json.loads((tiny.root / "onnx" / "labels.json").read_text())["thresholds"] == thresholds.tolist()
    output = tiny.root / "predictions.parquet"
    table = ["--input", tiny.root / "test.csv"]
    succeeded(tiny.kd("predict", "--student", run, *table, "--output", output, "--probabilities"))
    found = pl.read_parquet(output)
    shares = found.select(pl.col("^probability_.*$")).to_numpy()
    said = shares > thresholds
    assert found["prediction"].to_list() == ["|".join(np.array(LABELS)[row]) for row in said]
    gold = pl.read_csv(tiny.root / "test.csv").select(LABELS).to_numpy()
    results = json.loads((run / "results.json").read_text())
    scores = {row["model"]: row["scores"]["test"] for row in results["rows"]}
    assert set(scores) == {"teacher", "baseline", "tf-idf", "student"}
    assert scores["student"]["micro_f1"] == [pytest.approx(f1_score(gold, said, average="micro"))]
    ended = tiny.kd("predict", "--teacher", run, *table, "--json")
    answers = [row["prediction"] for row in json.loads(ended.out)["predictions"]]
    teacher = [[one in answer.split("|") for one in LABELS] for answer in answers]
    assert scores["teacher"]["micro_f1"] == [pytest.approx(f1_score(gold, teacher, average="micro"))]
    near = next(row for row in results["rows"] if row["model"] == "student")["fidelity"]["test"]
    assert near["agreement"]["value"] == pytest.approx((said == np.array(teacher)).mean())
    assert near["subset"]["value"] == pytest.approx((said == np.array(teacher)).all(1).mean())
