"""The checks of a generator: what ``kd transfer heavy`` relies on, and does not check itself."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from kdcli.api import Part, QuietReporter, Samples
from kdcli.testing import SEED, Kind, tiny_corpus, tiny_settings, tiny_task
from kdcli.testing.checks import Checks, Failure, Skip, Subject, cheap_import, expect, loads, options
from kdcli.transfer.sampling import cleaned, fault_of

DRAWS = 48  # draws of a part


@dataclass
class GeneratorSubject(Subject):
    """A generator under check: the kind of texts it has learned last, its sampler, prefixes and first texts."""

    kind: Kind = "single"
    sampler: Any = None
    prefixes: dict[str, Any] = field(default_factory=dict)
    texts: Sequence[str] = ()


def fine_tune(subject: GeneratorSubject) -> str:
    """Fine-tune on 40 texts."""
    model, corpus = subject.folder / "model", tiny_corpus(subject.kind)
    metrics = subject.plugin.fine_tune(corpus, model, tiny_settings(subject.options, subject.kind), QuietReporter())
    expect(model.exists(), "fine_tune to keep a model in the folder it is given", "nothing there")
    text = _json(metrics, "fine_tune")
    return f"{len(corpus.train)} texts: {text if len(text) < 120 else f'{text[:120]}...'}"


def load(subject: GeneratorSubject) -> str:
    """Load the fine-tuned model, and count what samples begin with."""
    settings = tiny_settings(subject.options, subject.kind)
    subject.sampler = subject.plugin.load(subject.folder / "model", settings, QuietReporter())
    subject.prefixes = json.loads(_json(subject.sampler.prefixes(tiny_corpus(subject.kind)), "prefixes"))
    return f"samples begin with {', '.join(subject.prefixes) or 'nothing'}"


def sample(subject: GeneratorSubject) -> str:
    """Draw a part, and count the texts that ``kd`` can use: a language model writes nonsense now and then."""
    drawn: Samples = subject.sampler.sample(subject.prefixes, Part(0, DRAWS, SEED))
    fault = fault_of(drawn, DRAWS, tiny_task(subject.kind))
    expect(not fault, f"kdcli.api.Samples that account for {DRAWS} draws", f"a sampler that {fault}")
    usable, rejected = cleaned(drawn, tiny_task(subject.kind))
    expected = f"{'pairs with one tab' if subject.kind == 'pair' else 'texts without a tab'}, half of the draws' texts"
    actual = f"{len(usable)} of {len(drawn.texts)}, and rejected: {rejected}; give it options with which it learns more"
    expect(0 < len(drawn.texts) <= 2 * len(usable), expected, actual)
    subject.texts = drawn.texts
    return f"{len(drawn.texts)} texts, for example {drawn.texts[0][:60]!r}"


def same_in_another_process(subject: GeneratorSubject) -> str:
    """Load and draw in another process, where sets have another order, as a resumed run does."""
    again = subject.elsewhere(draw_texts, str(subject.folder / "model"), dict(subject.table), subject.prefixes)
    different = [pair for pair in zip_longest(subject.texts, again) if pair[0] != pair[1]]
    expected = "the same texts in every process: no order of a set, no hash(), no clock"
    expect(not different, expected, f"{len(different)} pairs of others: {different[:1]}")
    return f"the same {len(again)} texts"


def draw_texts(plugin: Any, checkpoint: str, table: dict[str, Any], prefixes: dict[str, Any]) -> list[str]:
    """Return the texts of the first part."""
    settings = tiny_settings(plugin.Options.model_validate(table))
    sampler = plugin.load(Path(checkpoint), settings, QuietReporter())
    return list(sampler.sample(prefixes, Part(0, DRAWS, SEED)).texts)


def bits(subject: GeneratorSubject) -> str:
    """Measure texts, if the sampler can."""
    if not hasattr(subject.sampler, "bits"):
        raise Skip("the sampler has no bits")
    texts = list(tiny_corpus().dev)
    found = np.asarray(subject.sampler.bits(texts))
    alone = np.array([subject.sampler.bits([text])[0] for text in texts])
    same = found.shape == alone.shape and np.allclose(found, alone, rtol=1e-3, atol=1e-3)
    expect(bool(same), "finite bits for each text, whatever the other texts", f"{found[:3]}, and alone {alone[:3]}")
    return f"{found.sum() / sum(map(len, texts)):.2f} a character on dev"


def pairs(subject: GeneratorSubject) -> str:
    """Fine-tune on pairs in the same folder, as after a change of settings; load, and draw."""
    subject.kind = "pair"
    fine_tune(subject)
    load(subject)
    return sample(subject)


STEPS = (loads, options, fine_tune, load, sample)
CHECKS = Checks(GeneratorSubject, STEPS, (same_in_another_process, bits, pairs, cheap_import))


def _json(values: Any, function: str) -> str:
    try:
        return json.dumps(dict(values))
    except (TypeError, ValueError) as error:
        raise Failure(f"{function} to return a mapping of JSON values", f"{values!r}: {error}") from None
