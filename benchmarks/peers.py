"""The student beside small classifiers of other projects, and beside its teacher in ONNX Runtime, on SST-2's dev set.

    python benchmarks/peers.py --data DATA/SST-2 --teacher DATA/teacher-sst2 --encoder ENCODER --student STUDENT

The peers learn from the labelled texts of train: TF-IDF of words and word pairs with logistic regression
(scikit-learn), fastText with word pairs, and model2vec's classifier on static embeddings that are distilled from
ENCODER, the folder of a pretrained encoder. They live in an environment of their own in a temporary folder, with the
versions below; what kd has too, such as torch, is taken from kd's environment.

Everything runs on one thread, and a second is one of the processor, so that other work on the machine counts little.
One text a call is timed on the dev set, 64 a call on the test set, each text once. A cold start is a fresh process that
imports, loads and answers ten texts; the smallest of three. It prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# skeletoken is what the extra model2vec[distill] needs here; the extra itself asks for transformers before 5.4.
PEERS = ("fasttext-numpy2==0.10.4", "model2vec[train]==0.10.0", "skeletoken==0.6.1", "onnxscript==0.7.2")
ROOT = Path(__file__).resolve().parents[1]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
Predict = Callable[[list[str]], Sequence[str]]
"""Texts to labels, as they are written in the tables."""


# Each model: how it is made from (arguments, folder), and how it is loaded from its folder.


def make_tfidf(given: argparse.Namespace, folder: Path) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    model.fit(*read(given.data / "train.tsv", given.rows))
    (folder / "model.pickle").write_bytes(pickle.dumps(model))


def load_tfidf(folder: Path) -> Predict:
    model = pickle.loads((folder / "model.pickle").read_bytes())
    return lambda texts: model.predict(texts).tolist()


def make_fasttext(given: argparse.Namespace, folder: Path) -> None:
    import fasttext

    lines = folder / "train.txt"
    rows = zip(*read(given.data / "train.tsv", given.rows), strict=True)
    lines.write_text("".join(f"__label__{label} {text}\n" for text, label in rows), "utf-8")
    model = fasttext.train_supervised(
        str(lines), wordNgrams=2, bucket=200_000, epoch=5, lr=0.5, thread=1, seed=1, verbose=0
    )
    lines.unlink()
    model.save_model(str(folder / "model.bin"))


def load_fasttext(folder: Path) -> Predict:
    import fasttext

    model = fasttext.load_model(str(folder / "model.bin"))
    return lambda texts: [labels[0].removeprefix("__label__") for labels in model.predict(texts)[0]]


def make_model2vec(given: argparse.Namespace, folder: Path) -> None:
    from model2vec.distill import distill
    from model2vec.train import StaticModelForClassification

    texts, labels = read(given.data / "train.tsv", given.rows)
    model = StaticModelForClassification.from_static_model(model=distill(str(given.encoder)))
    model.fit(texts, labels, device="cpu")
    model.to_pipeline().save_pretrained(str(folder))


def load_model2vec(folder: Path) -> Predict:
    from model2vec.inference import StaticModelPipeline

    model = StaticModelPipeline.from_pretrained(str(folder))
    return lambda texts: [str(label) for label in model.predict(texts)]


def make_teacher(given: argparse.Namespace, folder: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    how = {"attn_implementation": "eager", "dtype": torch.float32}  # the folder may hold halves
    model = AutoModelForSequenceClassification.from_pretrained(given.teacher, **how).eval()
    words = torch.ones((2, 8), dtype=torch.int64)
    batch, length = torch.export.Dim("batch", min=1, max=512), torch.export.Dim("length", min=2, max=512)
    # Three tensors: the export makes one input of two that are the same (findings/torch-export-one-example-twice.sh).
    inputs = {"input_ids": words, "attention_mask": words.clone(), "token_type_ids": torch.zeros_like(words)}
    shapes = {name: {0: batch, 1: length} for name in inputs}
    torch.onnx.export(model, kwargs=inputs, dynamic_shapes=shapes, dynamo=True).save(str(folder / "model.onnx"))
    (folder / "tokenizer.json").write_bytes((given.teacher / "tokenizer.json").read_bytes())


def make_int8(given: argparse.Namespace, folder: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    make_teacher(given, folder)
    quantize_dynamic(
        folder / "model.onnx", folder / "int8.onnx", per_channel=True, reduce_range=True, weight_type=QuantType.QInt8
    )
    (folder / "int8.onnx").rename(folder / "model.onnx")


def load_teacher(folder: Path) -> Predict:
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding()

    def predict(texts: list[str]) -> list[str]:
        found = tokenizer.encode_batch(texts)
        columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        inputs = {name: np.array([getattr(one, column) for one in found]) for name, column in columns.items()}
        return [str(label) for label in session.run(None, inputs)[0].argmax(1)]

    return predict


def make_student(given: argparse.Namespace, folder: Path) -> None:
    for file in given.student.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())


def load_student(folder: Path) -> Predict:
    import kdcli

    student = kdcli.load_student(folder)
    return lambda texts: [one.label for one in student.predict(texts)]


MODELS: dict[str, tuple[Callable[[argparse.Namespace, Path], None], Callable[[Path], Predict]]] = {
    "TF-IDF, logistic regression": (make_tfidf, load_tfidf),
    "fastText": (make_fasttext, load_fasttext),
    "model2vec's classifier": (make_model2vec, load_model2vec),
    "teacher, ONNX Runtime": (make_teacher, load_teacher),
    "teacher, ONNX Runtime, int8": (make_int8, load_teacher),
    "**student**": (make_student, load_student),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "teacher", "encoder", "student"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--rows", type=int, help="rows of train, all by default")
    parser.add_argument("--make", help=argparse.SUPPRESS)  # in the environment of the peers
    parser.add_argument("--start", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make:
        MODELS[given.make][0](given, given.folder)
        print(json.dumps(measure(given)))
    elif given.start:
        MODELS[given.start][1](given.folder)(read(given.data / "dev.tsv", 10)[0])
    else:
        compare(given)


def compare(given: argparse.Namespace) -> None:
    """Make and measure each model in processes of its own, and print the table."""
    with tempfile.TemporaryDirectory() as place:
        python = environment(Path(place) / "environment")
        columns = ("model", "dev accuracy", "texts/s, one a call", "texts/s, 64 a call", "MB", "cold start, s")
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for number, name in enumerate(MODELS):
            folder = Path(place) / str(number)
            folder.mkdir()
            command = [python, __file__, *sys.argv[1:], "--folder", str(folder)]
            found = json.loads(run([*command, "--make", name]).splitlines()[-1])
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
            starts = [started([*command, "--start", name]) for _ in range(3)]
            speeds = f"{found['one']:,.0f} | {found['many']:,.0f}"
            print(f"| {name} | {found['accuracy']:.1f} | {speeds} | {size:.1f} | {min(starts):.2f} |", flush=True)
    print(f"\n{processor()}, one thread")


def measure(given: argparse.Namespace) -> dict[str, float]:
    """Return the accuracy on dev, and texts a second of the processor."""
    texts, labels = read(given.data / "dev.tsv")
    more = (given.data / "test.tsv").read_text("utf-8").removesuffix("\n").split("\n")[1:]
    fresh = [row.partition("\t")[2] for row in more]
    predict = MODELS[given.make][1](given.folder)
    begin = time.process_time()
    found = [predict([text])[0] for text in texts]
    one = time.process_time() - begin
    begin = time.process_time()
    for row in range(0, len(fresh), 64):
        predict(fresh[row : row + 64])
    many = time.process_time() - begin
    accuracy = 100 * sum(a == b for a, b in zip(found, labels, strict=True)) / len(labels)
    return {"accuracy": accuracy, "one": len(texts) / one, "many": len(fresh) / many}


def environment(folder: Path) -> str:
    """Make the environment of the peers, and return its Python; kd's packages are visible there."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    (site,) = (folder / "lib").glob("python*/site-packages")
    places = [str(ROOT), str(ROOT / "plugins"), *(path for path in sys.path if path.endswith("-packages"))]
    (site / "kd.pth").write_text("".join(f"{path}\n" for path in places))
    run([python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), *PEERS])
    return python


def read(table: Path, rows: int | None = None) -> tuple[list[str], list[str]]:
    """Return the texts and labels of a table of SST-2, whose columns are in either order."""
    head, *lines = table.read_text("utf-8").removesuffix("\n").split("\n")
    place = head.split("\t").index("label")
    cells: list[Any] = [line.split("\t") for line in lines[:rows]]
    return [row[1 - place] for row in cells], [row[place] for row in cells]


def run(command: list[str]) -> str:
    """Run a program, and return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def started(command: list[str]) -> float:
    """Return the seconds of the processor that a program takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def processor() -> str:
    """Return the name of the processor."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else "an unknown processor"


if __name__ == "__main__":
    main()
