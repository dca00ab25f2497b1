"""A tiny task and its texts: opinions on films, of few words so that a tiny model can learn them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from kdcli.api import Corpus, GeneratorSettings, Task

Kind = Literal["single", "pair"]

_THINGS = ("plot", "cast", "music", "ending", "camera", "script")
_WORDS = (("warm", "dull"), ("clever", "cold"), ("lovely", "poor"), ("bright", "slow"), ("rich", "thin"))
_FORMS = (
    "the {one} is {word} and the {other} is {second} .",
    "a {word} {one} , with a {second} {other}",
    "i found the {one} {word} but the {other} was {second} !",
)
SEED = 7


def tiny_task(kind: Kind = "single", scores: bool = False) -> Task:
    """Return a task: two classes for single sentences, three for pairs, or scores from 0 to 5."""
    if scores:
        return Task("tiny", kind, (), score_range=(0.0, 5.0), metric="pearson", more_metrics=("spearman",))
    if kind == "pair":
        return Task("tiny", kind, ("0", "1", "2"), names=("same", "other", "opposite"))
    return Task("tiny", kind, ("0", "1"), names=("negative", "positive"))


def tiny_corpus(kind: Kind = "single") -> Corpus:
    """Return 60 different texts or pairs: 40 to learn from, 10 for dev, 10 for test."""
    texts = [_sentence(place) for place in range(60)]
    if kind == "pair":
        texts = [f"{text}\t{_sentence(7 * place + 3)}" for place, text in enumerate(texts)]
    return Corpus(kind, texts[:40], texts[40:50], texts[50:])


def tiny_settings(options: Any, kind: Kind = "single") -> GeneratorSettings:
    """Return the settings with which generators are checked."""
    return GeneratorSettings(options, kind, seed=SEED, device="cpu", precision="fp32")


def tiny_teacher(folder: Path, labels: tuple[str, ...] = ("entailment", "neutral", "contradiction")) -> Path:
    """Write a random BERT classifier that knows the words of ``tiny_corpus`` to a folder, and return the folder."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    from kdcli.models.hf import quiet

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    words = sorted({word for text in tiny_corpus().train for word in text.split()})
    vocabulary = {word: number for number, word in enumerate([*special, *words, *labels])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    kinds = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **dict(zip(kinds, special, strict=True)),
    ).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(SEED)
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=64,
            initializer_range=0.5,  # logits that differ from text to text
            id2label=dict(enumerate(labels)),
        )
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def _sentence(place: int) -> str:
    """Return one of the sentences; the first 60 differ."""
    one = place % len(_THINGS)
    words = _WORDS[place % len(_WORDS)]
    return _FORMS[place // 30 % len(_FORMS)].format(
        one=_THINGS[one],
        other=_THINGS[(one + 1 + place // 7 % 5) % len(_THINGS)],
        word=words[place % 2],
        second=_WORDS[(place + 1 + place // 6) % len(_WORDS)][place // 2 % 2],
    )
