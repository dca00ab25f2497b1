"""For a plugin's own tests: the checks of the contract, a tiny task, and ``kd`` in a process of its own.

``kd plugins check NAME`` runs the same checks. Importing this module imports neither pytest nor torch.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from kdcli.api import Corpus, GeneratorSettings, QuietReporter, Reporter, Task
from kdcli.registry import Group
from kdcli.testing.checks import CheckOutcome, Checks, Run, run_checks, run_cli

__all__ = ["CheckOutcome", "check_generator", "check_student", "check_tagger", "check_teacher"]
__all__ += ["Run", "run_cli", "tiny_corpus", "tiny_task", "tiny_teacher"]

Kind = Literal["single", "pair"]

_THINGS = ("plot", "cast", "music", "ending", "camera", "script")
_WORDS = (("warm", "dull"), ("clever", "cold"), ("lovely", "poor"), ("bright", "slow"), ("rich", "thin"))
_FORMS = (
    "the {one} is {word} and the {other} is {second} .",
    "a {word} {one} , with a {second} {other}",
    "i found the {one} {word} but the {other} was {second} !",
)
SEED = 7


def check_generator(plugin: Any, *, options: Mapping[str, Any] | None = None) -> list[CheckOutcome]:
    """Check that a generator plugin keeps the contract of ``kdcli.api.GeneratorPlugin``; return each outcome.

    ``plugin`` is its module, an object with the same attributes, or its installed name; ``options`` its table of a
    profile. The check fine-tunes it twice, on 40 short sentences and on 40 pairs, in a temporary folder. Choose options
    with which that takes seconds, and after which it generates texts.

    Raises:
        AssertionError: Checks have failed. It names each, with the expected and the actual behaviour.
    """
    return _assert(check_plugin("generators", plugin, options))


def check_student(plugin: Any, *, options: Mapping[str, Any] | None = None) -> list[CheckOutcome]:
    """Check a student plugin against ``kdcli.api.StudentPlugin``, with a model for each kind of task it promises.

    Small options suffice. Arguments and result are those of ``check_generator``.
    """
    return _assert(check_plugin("students", plugin, options))


def check_tagger(plugin: Any) -> list[CheckOutcome]:
    """Check that a tagger plugin keeps the contract of ``kdcli.api.TaggerPlugin``, as ``check_generator`` does."""
    return _assert(check_plugin("taggers", plugin))


def check_teacher(
    plugin: Any, *, model: str | Path = "", options: Mapping[str, Any] | None = None
) -> list[CheckOutcome]:
    """Check that a teacher plugin keeps the contract of ``kdcli.api.TeacherPlugin``.

    The check compares its logits of 40 sentences and of 40 pairs, read in several ways. ``model`` is what it loads; by
    default the folder of ``tiny_teacher``. Other arguments and the result are those of ``check_generator``.
    """
    return _assert(check_plugin("teachers", plugin, options, model=model))


def check_plugin(
    group: Group,
    plugin: Any,
    options: Mapping[str, Any] | None = None,
    *,
    model: str | Path = "",
    reporter: Reporter | None = None,
) -> list[CheckOutcome]:
    """Run all checks of a plugin's group, and raise nothing; ``model`` is what a teacher loads."""
    checks: Checks = import_module(f"kdcli.testing.{group}").CHECKS
    found, more = [], {"model": str(model)} if model else {}
    bar = (reporter or QuietReporter()).progress("check", len(checks.steps + checks.others), "checks")
    with TemporaryDirectory(prefix="kd-check-") as folder, bar as progress:
        subject = checks.subject(group, plugin, dict(options or {}), Path(folder), **more)
        for outcome in run_checks(checks, subject):
            found.append(outcome)
            progress.advance(last=outcome.check)
    return found


def _assert(found: list[CheckOutcome]) -> list[CheckOutcome]:
    if failed := [f"\n  {outcome.check}: {outcome.detail}" for outcome in found if outcome.result == "failed"]:
        raise AssertionError(f"{len(failed)} of {len(found)} checks failed{''.join(failed)}")
    return found


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


def tiny_teacher(folder: Path, labels: tuple[str, ...] = ("entailment", "neutral", "contradiction")) -> Path:
    """Write a random BERT classifier that knows the words of ``tiny_corpus`` to a folder, and return the folder."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    from kdcli.lm.texts import SPECIAL, train_wordpiece
    from kdcli.models.hf import quiet

    pieces = train_wordpiece([[*tiny_corpus().train, *labels]], 1000)
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(tokenizer_object=pieces, model_input_names=inputs, **SPECIAL).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(SEED)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        sizes |= {"max_position_embeddings": 64, "vocab_size": pieces.get_vocab_size()}
        # A wide initialisation gives logits that differ from text to text.
        config = BertConfig(**sizes, initializer_range=0.5, id2label=dict(enumerate(labels)))
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def tiny_settings(options: Any, kind: Kind = "single") -> GeneratorSettings:
    """Return the settings with which generators are checked."""
    return GeneratorSettings(options, kind, seed=SEED, device="cpu", precision="fp32")


def _sentence(place: int) -> str:
    """Return one of the sentences; the first 60 differ."""
    one, words = place % len(_THINGS), _WORDS[place % len(_WORDS)]
    return _FORMS[place // 30 % len(_FORMS)].format(
        one=_THINGS[one],
        other=_THINGS[(one + 1 + place // 7 % 5) % len(_THINGS)],
        word=words[place % 2],
        second=_WORDS[(place + 1 + place // 6) % len(_WORDS)][place // 2 % 2],
    )


def fast_imports_torch(plugin: Any, file: str, table: dict[str, Any]) -> bool:
    """Predict with a student's ``fast``, and return whether this process, which has nothing else to do, has torch."""
    import sys

    import numpy as np
    from safetensors.numpy import load_file

    compute = plugin.fast(plugin.Options.model_validate(table), tiny_task(), load_file(file))
    compute((np.array([[1, 2, 0]]),), (np.array([2]),))
    return "torch" in sys.modules
