"""A multi-label task through ``kd run-all`` and all commands that go on from there."""

import json
import random

import numpy as np
import polars as pl
import pytest
from e2e.conftest import refused, succeeded
from e2e.test_tasks import goes_on
from scipy.special import expit
from sklearn.metrics import f1_score

LABELS = ("red", "blue", "green")
PROFILE = """
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
    path.write_text(PROFILE)
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
    own_shares = dict(zip(LABELS, expit(logits.astype(float)).T, strict=True))
    pl.DataFrame({"sentence": joined["sentence"], **own_shares}).write_csv(tiny.root / "own.csv")
    own = ["--input", run / "transfer" / "lite.parquet", "--logits", tiny.root / "own.csv"]
    succeeded(tiny.kd("join", *own, "--output", tiny.root / "own.parquet", *where))
    assert pl.read_parquet(tiny.root / "own.parquet")["label"].to_list() == joined["label"].to_list()
    single = ["--set", "task.multi_label=false", "--set", "task.metric=accuracy", "--set", "task.more_metrics=[]"]
    refused(tiny.kd("predict", "--teacher", run, *table, "--profile", path, *single), 4, "task.multi_label")
