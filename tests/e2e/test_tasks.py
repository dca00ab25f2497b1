"""Every task goes through ``kd run-all`` in GLUE's own layout, by rules and by a language model's samples."""

import csv
import json
from pathlib import Path

import pytest
from glue_tables import TASKS, write

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
[teacher.config]
model_type = "bert"
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
max_position_embeddings = 64
[student]
vectors = ""
dimension = 8
epochs = 1
batch_size = 16
[students.bilstm]
hidden = 8
fc = 8
"""

METRICS = {
    "cola": ["mcc"],
    "mrpc": ["f1", "accuracy"],
    "qqp": ["f1", "accuracy"],
    "stsb": ["pearson", "spearman"],
}


def profile(tiny, name: str, generator_epochs: int = 12) -> Path:
    path = tiny.root / f"{name}.toml"
    path.write_text(SMALL.format(name=name, generator_epochs=generator_epochs))
    return path


def run_all(tiny, path: Path, data: Path, method: str, *more: str):
    run_dir = tiny.root / f"run-{method}"
    where = ["--profile", path, "--data-dir", data, "--run-dir", run_dir, "--set", f"transfer.method={method}"]
    ended = tiny.kd("run-all", *where, *more, "--json")
    assert ended.code == 0, ended.err
    return run_dir, ended


def check_results(name: str, results: dict, dev_tables: list[str]) -> None:
    metrics = METRICS.get(name, ["accuracy"])
    assert results["metrics"] == metrics
    assert list(results["gap_closed"]) == dev_tables
    for row in results["rows"]:
        for scores in row["scores"].values():
            assert list(scores) == metrics
            assert all(-1 <= value <= 1 for values in scores.values() for value in values)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_goes_through_on_both_roads(tiny, name):
    data = tiny.root / name
    write(name, data)
    glue = TASKS[name]
    run_dir, ended = run_all(tiny, profile(tiny, name), data, "lite+heavy")
    dev_tables = ["dev_matched", "dev_mismatched"] if name == "mnli" else ["dev"]
    check_results(name, ended.result["result"], dev_tables)

    with (run_dir / "join" / "joined.tsv").open(encoding="utf-8", newline="") as file:
        joined = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    originals = [row for row in joined if row["source"] == "original"]
    rows = [glue.row(place) for place in range(48)]
    without_gold = sum(row[glue.label] == "-" for row in rows)
    assert (without_gold, len(originals)) == ((3, 45) if name == "mnli" else (0, 48))
    assert {row["source"] for row in joined} == {"original", "lite", "heavy"}
    assert len([key for key in joined[0] if key.startswith("logits_")]) == {"mnli": 3, "stsb": 1}.get(name, 2)

    predicted = tiny.root / "predictions.tsv"
    student = run_dir / "student"
    test = f"{glue.test[0]}.tsv"
    assert tiny.kd("predict", "--student", student, "--input", data / test, "--output", predicted).code == 0
    lines = [line.split("\t") for line in predicted.read_text().splitlines()[1:]]
    assert [line[0] for line in lines] == [str(number) for number in range(12)]
    if name == "stsb":
        assert all(0 <= float(line[1]) <= 5 for line in lines)
    else:
        known = {"-", *(row[glue.label] for row in rows)}
        assert {line[1] for line in lines} <= known - {"-"}


def test_the_student_of_mnli_predicts_the_diagnostics(tiny):
    data = tiny.root / "mnli"
    write("mnli", data)
    run_dir, _ = run_all(tiny, profile(tiny, "mnli"), data, "lite", "--until", "student")
    pairs = [("Anna left .", "Anna is gone ."), ("It rains .", "It is dry ."), ("He ate .", "He was hungry .")]
    table = tiny.root / "diagnostic.tsv"
    table.write_text("index\tsentence1\tsentence2\n" + "".join(f"{n}\t{a}\t{b}\n" for n, (a, b) in enumerate(pairs)))
    for model in (["--student", run_dir / "student"], ["--teacher", run_dir / "teacher"]):
        ended = tiny.kd("predict", *model, "--profile", "ax", "--input", table, "--json")
        assert ended.code == 0, ended.err
        predictions = ended.result["predictions"]
        assert [row["index"] for row in predictions] == ["0", "1", "2"]
        assert {row["prediction"] for row in predictions} <= {"entailment", "neutral", "contradiction"}
    refused = tiny.kd("run-all", "--profile", "ax", "--data-dir", tiny.root)
    assert refused.code == 2
    assert "the student of mnli predicts it" in refused.err and "kd run-all --profile mnli" in refused.err


def test_a_custom_task_by_flags_alone(tiny):
    data = tiny.root / "custom"
    data.mkdir()
    for split, places in (("train", range(40)), ("dev", range(40, 60))):
        rows = [TASKS["sst2"].row(place) for place in places]
        lines = [
            f"{place},{text.strip()},{'pos' if label == '1' else 'neg'}" for place, (text, label) in enumerate(rows)
        ]
        (data / f"{split}.csv").write_text("\n".join(["nr,opinion,mood", *lines]) + "\n")
    columns = ["--text-col", "opinion", "--label-col", "mood", "--set", 'task.labels=["neg", "pos"]']
    _, ended = run_all(tiny, profile(tiny, "custom"), data, "lite", *columns)
    check_results("custom", ended.result["result"], ["dev"])

    for split in ("train", "dev"):
        text = (data / f"{split}.csv").read_text()
        (data / f"{split}.csv").write_text(
            "\n".join(f"{line},x" if at else f"{line},other" for at, line in enumerate(text.splitlines()))
        )
    pair = [*columns[:2], "--text2-col", "other", *columns[2:]]
    tiny.root.joinpath("run-lite").rename(tiny.root / "run-single")
    run_dir, ended = run_all(tiny, profile(tiny, "custom"), data, "lite", *pair, "--until", "join")
    assert (run_dir / "join" / "joined.tsv").read_text().startswith("sentence1\tsentence2\t")

    wrong = tiny.kd("run-all", "--profile", "custom", "--data-dir", data, "--text2-col", "other")
    assert wrong.code == 2 and "--text2-col needs --text-col" in wrong.err
    missing = tiny.kd(
        "run-all", "--profile", "custom", "--data-dir", data, "--text-col", "review", "--run-dir", tiny.root / "r"
    )
    assert missing.code == 4 and "there is no column 'review'" in missing.err and "'opinion'" in missing.err


FOLDERS = {
    "sst2": "SST-2",
    "cola": "CoLA",
    "mrpc": "MRPC",
    "stsb": "STS-B",
    "qqp": "QQP",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
@pytest.mark.parametrize("method", ["lite", "heavy"])
@pytest.mark.parametrize("name", FOLDERS)
def test_real_rows_go_through(tiny, name, method):
    """Some hundred rows of the real tables, as they come."""
    data = tiny.root / name
    data.mkdir()
    for table in (SHARED / FOLDERS[name]).glob("*.tsv"):
        with table.open(encoding="utf-8", newline="\n") as file:
            (data / table.name).write_text("".join(line for line, _ in zip(file, range(301), strict=False)), "utf-8")
    run_dir, ended = run_all(
        tiny, profile(tiny, name, generator_epochs=4), data, method, "--set", "generators.gpt2.max_length=256"
    )
    check_results(name, ended.result["result"], ["dev_matched"] if name == "mnli" else ["dev"])
    report = json.loads((run_dir / "results.json").read_text())
    assert [row["model"] for row in report["rows"]] == ["teacher", "baseline", "student"]
