"""Every key of d-bert's JSON configs: its type, and the setting of ``kd`` that it becomes or why there is none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """A key that d-bert knows.

    Attributes:
        kind: The type of its value; an ``int`` will do for a ``float``.
        setting: What it is called in a profile; empty if ``kd`` has no use for it.
        why: Where there is no setting: why not, for the user.
    """

    kind: type
    setting: str = ""
    why: str = ""


_UNREAD = "d-bert reads it nowhere"

STUDENT = {
    "dataset_name": Key(str, "extends"),
    "dataset_path": Key(str, "task.data_dir"),
    "train_file": Key(str),
    "dev_file": Key(str),
    "test_file": Key(str),
    "vectors_file": Key(str, "student.vectors"),
    "vectors_dir": Key(str, "student.vectors"),
    "mode": Key(str, "students.bilstm.embeddings"),
    "words_dim": Key(int, "student.dimension"),
    "rnn_type": Key(str, "students.bilstm.cell"),
    "hidden_size": Key(int, "students.bilstm.hidden"),
    "fc_size": Key(int, "students.bilstm.fc"),
    "use_maxpool": Key(bool, "students.bilstm.pooling"),
    "dropout": Key(float, "students.bilstm.dropout"),
    "optimizer": Key(str, "student.optimizer"),
    "lr": Key(float, "student.lr"),
    "weight_decay": Key(float, "student.weight_decay"),
    "clip_grad": Key(float, "student.clip"),
    "batch_size": Key(int, "student.batch_size"),
    "epochs": Key(int, "student.epochs"),
    "early_stop": Key(bool, "student.patience"),
    "distill_lambda": Key(float, "student.kd_weight"),
    "ce_lambda": Key(float, "student.ce_weight"),
    "distill_temperature": Key(float),
    "use_data_parallel": Key(bool, why="the student trains on one device"),
    "load_last_checkpoint": Key(bool, why="a killed training goes on by itself: --resume auto"),
    "load_best_checkpoint": Key(bool, why="a killed training goes on by itself: --resume auto"),
    "eval_test_only": Key(bool, why="kd predict does it"),
    "export_eval_labels": Key(bool, why="kd predict does it"),
    "float_score": Key(bool, why="the task says whether it has scores"),
    "logits_path": Key(str, why=f"{_UNREAD}; the logits are columns of the joined set"),
    "lookup_word": Key(str, why=_UNREAD),
    "output_channel": Key(int, why="it is KimCNN's; a BiLSTM has none"),
    "n_feature_maps": Key(int, why="it is ConvRNN's; a BiLSTM has none"),
}

TEACHER = {
    "task_name": Key(str, "extends"),
    "n_labels": Key(int),
    "data_dir": Key(str, "task.data_dir"),
    "model_file": Key(str, "teacher.model"),
    "learning_rate": Key(float, "teacher.lr"),
    "num_train_epochs": Key(int, "teacher.epochs"),
    "train_batch_size": Key(int, "teacher.batch_size"),
    "eval_batch_size": Key(int, "teacher.export.batch_size"),
    "max_seq_length": Key(int, "teacher.max_length"),
    "warmup_proportion": Key(float, "teacher.warmup"),
    "do_train": Key(bool, "teacher.train"),
    "do_test_only": Key(bool, "teacher.train"),
    "fp16": Key(bool, "precision"),
    "no_cuda": Key(bool, "device"),
    "do_eval": Key(bool, why="the teacher is always evaluated on dev"),
    "uncased": Key(bool, why="the teacher's tokenizer knows"),
    "gradient_accumulation_steps": Key(int, why="kd cuts a batch into what fits by itself"),
    "loss_scale": Key(float, why="fp16 training scales by itself"),
    "export": Key(str, why="name the logits file with kd teacher export --output"),
    "visualize": Key(bool, why=_UNREAD),
}

COMMON = {
    "seed": Key(int, "seed"),
    "device": Key(str, "device"),
    "workspace": Key(str),
}

KEYS = STUDENT | TEACHER | COMMON

PROFILES = {
    "sst2": "sst2",
    "sst": "sst2",
    "cola": "cola",
    "mrpc": "mrpc",
    "sts": "stsb",
    "raw_sts_pair": "stsb",
    "qqp": "qqp",
    "qqb": "qqp",
    "mnli": "mnli",
    "mnli_match": "mnli",
    "mnli_mismatch": "mnli",
    "qnli": "qnli",
    "rte": "rte",
    "imdb": "imdb",
}
"""The profile of each ``dataset_name`` and ``task_name``."""

ANY_TEXTS = ("imdb", "raw_single", "raw_pair")
"""The ``task_name`` of texts of whatever task: ``imdb`` is d-bert's name for one text a line."""

RAW = (*ANY_TEXTS, "raw_sts_pair")
"""The ``task_name`` of texts without labels, whose logits are exported."""

GOOGLE = {
    "uncased_L-24_H-1024_A-16": "bert-large-uncased",
    "uncased_L-12_H-768_A-12": "bert-base-uncased",
    "cased_L-24_H-1024_A-16": "bert-large-cased",
    "cased_L-12_H-768_A-12": "bert-base-cased",
}
"""What the folders of Google's BERT releases are called on the Hub."""

OTHERS = {
    "n_embd": ("a configuration of GPT-2", "kd knows it by name: generators.gpt2.model is 117M or 345M"),
    "bert_model": (
        "a config of extract_bert_vectors",
        'kd makes word vectors of an encoder: student.vectors = "teacher"',
    ),
}
"""Files in d-bert's confs that no program of the README reads, told by a key: what they are, and what ``kd`` has."""
