"""Tiny random classifiers on disk, in the form of real ones."""

import csv
import json
import os
import random
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from kdcli.testing import tiny_teacher

TEXT = "a good bad film not very dull the plot is and actors but great boring it was"
WORDS = TEXT.split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SMALL = (
    *("--set", "student.max_size=60", "--set", "student.dimension=8", "--set", "student.epochs=4"),
    *("--set", "students.bilstm.hidden=8", "--set", "students.bilstm.fc=8", "--set", "student.vectors="),
    *("--set", "transfer.lite.n_iter=1", "--set", "transfer.lite.workers=1"),
)
"""The settings of a tiny student, for ``kd distil``."""


def make_teacher(folder, *, labels=("negative", "positive"), mask="[MASK]", model_class=None, dtype=None, **config):
    """Save a tiny random BERT classifier and return its folder; ``labels`` of None are those without names."""
    folder = Path(folder)
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, mask, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    special = dict(zip(names, [*SPECIAL, mask], strict=True))
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **special)
    fast.save_pretrained(folder)
    torch.manual_seed(7)
    settings = {"vocab_size": len(vocabulary), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings |= {"intermediate_size": 32, "max_position_embeddings": 32, "num_labels": len(labels)}
    settings |= {"initializer_range": 0.5}  # logits that differ from text to text
    settings |= {"id2label": dict(enumerate(labels))} if labels[0] is not None else {}
    model = (model_class or transformers.BertForSequenceClassification)(transformers.BertConfig(**settings | config))
    model.to(dtype or torch.float32).save_pretrained(folder)
    return folder


def texts(count, seed=1):
    draw = random.Random(seed)
    made = [" ".join(draw.choices(WORDS, k=draw.randint(3, 9))) for _ in range(3 * count)]
    return list(dict.fromkeys(made))[:count]


def write_csv(path, rows, header):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def rewrite(path, name="config.json", **values):
    """Change values of a JSON file, or of that one of a folder; what becomes ``...`` goes."""
    file = path / name if path.is_dir() else path
    content = (json.loads(file.read_text()) if file.exists() else {}) | values
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def make_decoder(folder, pad_in_config=None):
    """Save a tiny random GPT-2 classifier whose tokenizer pads on the left, and return its folder."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_teacher(folder))
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "eos_token": "[SEP]", "padding_side": "left"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, **special)
    fast.save_pretrained(folder)
    torch.manual_seed(5)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.5}
    config = transformers.GPT2Config(vocab_size=len(tokenizer), num_labels=2, pad_token_id=pad_in_config, **sizes)
    transformers.GPT2ForSequenceClassification(config).save_pretrained(folder)
    return folder


@torch.inference_mode()
def decoded(folder, *columns):
    """Compute a decoder's logits from the last token of each text alone, ``[texts, labels]``."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.GPT2ForSequenceClassification.from_pretrained(folder).eval()
    rows = [torch.tensor([tokenizer(*row)["input_ids"]]) for row in zip(*columns, strict=True)]
    return torch.stack([model.score(model.transformer(row).last_hidden_state[0, -1]) for row in rows]).numpy()


@torch.inference_mode()
def raw_logits(folder, *columns, max_length=None):
    """Compute the logits of each row alone, without padding, by transformers itself, ``[rows, outputs]``."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    how = {"truncation": max_length is not None, "max_length": max_length, "return_tensors": "pt"}
    # Lists of one, because the library takes an empty second text that stands alone for none.
    rows = [tokenizer(*([text] for text in row), **how) for row in zip(*columns, strict=True)]
    return torch.cat([model(**row).logits for row in rows]).numpy()


class Hostile:
    """What makes a folder as soon as it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)
