"""Student folders with random weights, made without training, and texts of all kinds for them."""

import numpy as np
import polars as pl
import torch

from kdcli.api import Batch, Task
from kdcli.student.build import build_student, count_parameters
from kdcli.student.student import Student
from kdcli.student.vocabulary import train_vocabulary

SINGLE = Task("toy", "single", ("no", "yes"), names=("bad", "good"))
PAIR = Task("toy", "pair", ("a", "b", "c"))
SCORE = Task("toy", "pair", (), score_range=(0.0, 5.0), metric="pearson", more_metrics=("spearman",))
KINDS = (SINGLE, PAIR, SCORE)

WORDS = "the a plot film was is good bad dull great , . ! not very and but warm cold seen"
MAX_LENGTH = 12
TEXTS = [
    "the film was very good .",
    "",
    "unheard words of strangers",
    "THE PLOT,the   plot!  Wärm",
    "a [MASK] film was [MASK]!",
    "good " * 3 * MAX_LENGTH,
    "not bad\u2028not good",
    "  dull  ",
    "電影 good",
    "seen",
]


SMALL = {
    "bilstm": {"hidden": 6, "fc": 5, "layers": 1, "embeddings": "multichannel", "alignment": True},
    "kimcnn": {"filters": 4, "widths": [1, 2]},
    "dan": {"buckets": 7, "fc": 5},
}


def make_student(folder, task=SINGLE, *, seed=1, plugin="bilstm", pieces=(), **options):
    """Write a student's folder; its logits are large enough to tell models apart."""
    tokenizer = train_vocabulary([pl.Series([WORDS])], max_size=100, min_freq=1, lowercase=True, pieces=pieces)
    options = {**SMALL[plugin], **options}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build_student(plugin, options, task, tokenizer.get_vocab_size(), None, 4)
        for parameter in module.parameters():
            torch.nn.init.uniform_(parameter, -1, 1)
        words = tuple(torch.randint(1, tokenizer.get_vocab_size(), (200, 6)) for _ in task.columns)
        batch = Batch(words, (torch.full((200,), 6),) * len(words))
        with torch.no_grad():
            module.logits.bias -= module.eval()(batch).mean(dim=0)  # so that no label is that of all texts
    every, inside = count_parameters(module)
    training = {"kd_loss": "mse", "kd_weight": 1.0, "ce_weight": 0.0, "temperature": 1.0, "lowercase": True}
    training |= {"optimizer": "adam", "lr": 0.002, "batch_size": 50, "vectors": "/home/somebody/minilm"}
    config = {"plugin": plugin, "options": options, "vocabulary_size": tokenizer.get_vocab_size(), "dimension": 4}
    config |= {"max_length": MAX_LENGTH, "vectors": "encoder /home/somebody/minilm", "rows": 1000}
    config |= {"seed": seed, "training": training, "kd": "0.1.0"}
    dev = {"pearson": 0.75, "spearman": 0.5} if task.is_score else {"accuracy": 0.75, "f1": 0.5, "mcc": 0.25}
    metrics = {"dev": dev, "updates": 60, "best_update": 40}
    metrics |= {"parameters": every, "parameters_without_embeddings": inside}
    weights = {name: value.numpy() for name, value in module.state_dict().items()}
    Student(task, config, metrics, tokenizer, weights).save(folder)
    return folder


def columns(task, texts=TEXTS):
    return [list(np.roll(np.array(texts, object), 3 * place)) for place in range(len(task.columns))]
