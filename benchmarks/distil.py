"""`kdcli.distil` by parts, its memory with many texts offered, and against a zero-shot pipeline with a Trainer.

    python benchmarks/distil.py parts --teacher DATA/teacher-sst2 --texts movie_reviews_sentences.txt
    python benchmarks/distil.py memory --teacher DATA/teacher-sst2
    python benchmarks/distil.py zero-shot --teacher NLI --texts questions.txt --labels health,money,education

`parts`: the whole time of `kdcli.distil` on some texts, against the teacher's forward pass over the same texts plus the
student's training alone, which `kd.lock` and the learning curve do not need: both are timed here, in the same process.
`memory`: the peak of a process that is offered two million made-up texts, learns from 50,000, and trains to the end.
`zero-shot`: from texts to a student, against the way of a script for transformers (pull request 10244): one pass of
the pipeline a text and label, then the Trainer on an encoder of DistilBERT's size that starts from a configuration.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe
from transformers import (
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

import kdcli
from kdcli.run.runner import results
from kdcli.teacher.model import TeacherSource


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("parts", "memory", "zero-shot"))
    parser.add_argument("--teacher", required=True, help="folder of a fine-tuned model, or of one of NLI")
    parser.add_argument("--texts", type=Path, help="one text a line")
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--epochs", type=int, default=3, help="of both students of zero-shot")
    parser.add_argument("--labels", default="", help="of a zero-shot teacher")
    given = parser.parse_args()
    print(describe())
    if given.what == "memory":
        memory(given.teacher)
        return
    lines = list(dict.fromkeys(given.texts.read_text("utf-8").splitlines()))
    texts = [lines[number] for number in np.random.default_rng(1).permutation(len(lines))[: given.rows]]
    if given.what == "parts":
        parts(given.teacher, texts)
    else:
        zero_shot(given.teacher, texts, given.labels.split(","), given.epochs)


def parts(teacher: str, texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        alone = {"transfer.lite.n_iter": 0}  # the teacher reads these texts, and no fabricated ones
        student = kdcli.distil(teacher, texts, settings=alone, run_dir=Path(folder) / "run")
        whole = time.perf_counter() - begin
        trained = results(Path(folder) / "run")["student"]
        model = TeacherSource(teacher).load(student.task)
        begin = time.perf_counter()
        model.logits([texts])
        forward = time.perf_counter() - begin
        training = trained.updates * student.config["training"]["batch_size"] / trained.rows_per_second
    print(f"distil {whole:.1f} s; teacher's pass {forward:.1f} s, student's training {training:.1f} s")
    print(f"ratio {whole / (forward + training):.2f} (at most 1.3 is asked)")


def memory(teacher: str, offered: int = 2_000_000) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.txt"
        random = np.random.default_rng(1)
        words = np.array(["".join(map(chr, random.integers(97, 123, 5))) for _ in range(20_000)])
        with path.open("w") as file:
            for _ in range(offered // 10_000):
                file.writelines(" ".join(row) + "\n" for row in words[random.integers(0, len(words), (10_000, 12))])
        code = (
            "import resource, kdcli;"
            f"kdcli.distil({teacher!r}, {str(path)!r}, budget=50_000, settings={{'transfer.lite.n_iter': 0}},"
            f" run_dir={str(Path(folder) / 'run')!r});"
            "who = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN;"
            "print(*(f'{resource.getrusage(one).ru_maxrss * 1024 / 1e9:.2f}' for one in who))"
        )
        printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    peak, child = printed.split()
    print(f"{offered:,} texts offered, 50,000 chosen: peak {peak} GB, of a child {child} GB (at most 1.5 is asked)")


def zero_shot(teacher: str, texts: list[str], labels: list[str], epochs: int) -> None:
    begin = time.perf_counter()
    sets = {"student.epochs": epochs, "transfer.lite.n_iter": 0}
    with tempfile.TemporaryDirectory() as folder:
        kdcli.distil(teacher, texts, labels=labels, settings=sets, run_dir=Path(folder) / "run")
        ours = time.perf_counter() - begin
        near = json.loads((Path(folder) / "run/results.json").read_text())["rows"][-1]["fidelity"]
    begin = time.perf_counter()
    script(teacher, texts, labels, epochs)
    theirs = time.perf_counter() - begin
    print(f"kd {ours:.0f} s, agreement {next(iter(near.values()))['agreement']}")
    print(f"zero-shot pipeline and Trainer {theirs:.0f} s: {theirs / ours:.1f}x (at least 3x is asked)")


def script(teacher: str, texts: list[str], labels: list[str], epochs: int) -> None:
    """Label by the pipeline, and train an encoder of DistilBERT's size from a configuration."""
    classify = pipeline("zero-shot-classification", model=teacher, device="cpu")
    answers = classify(texts, labels, hypothesis_template="This example is {}.", batch_size=32)
    soft = [[answer["scores"][answer["labels"].index(label)] for label in labels] for answer in answers]
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    config = DistilBertConfig(vocab_size=len(tokenizer), num_labels=len(labels))
    model = DistilBertForSequenceClassification(config)
    encoded = tokenizer(texts, truncation=True, max_length=128)
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": wanted}
        for ids, mask, wanted in zip(encoded["input_ids"], encoded["attention_mask"], soft, strict=True)
    ]

    class Soft(Trainer):
        def compute_loss(
            self, model: torch.nn.Module, inputs: dict, return_outputs: bool = False, **_: object
        ) -> object:
            wanted = inputs.pop("labels")
            outputs = model(**inputs)
            loss = -(wanted * outputs.logits.log_softmax(-1)).sum(-1).mean()
            return (loss, outputs) if return_outputs else loss

    with tempfile.TemporaryDirectory() as folder:
        how = TrainingArguments(
            folder,
            per_device_train_batch_size=32,
            num_train_epochs=epochs,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        )
        Soft(model, how, train_dataset=rows, processing_class=tokenizer).train()


if __name__ == "__main__":
    main()
